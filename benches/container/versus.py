"""Whole processes that make, start, wait for and remove one container, ours and crun's by turns: wall
time and CPU time of each, a line of JSON a run. Ours makes a control group for all its
containers besides. crun before 1.9 refuses the hybrid of cgroup v1 and v2, so the
v2 mount is hidden from both."""
import json
import os
import shutil
import subprocess
import sys
import time

floor, tree, bundle, runs, gap = sys.argv[1:]
CLONE_NEWNS, MS_REC_PRIVATE, MNT_DETACH = 0x20000, 0x4000 | 0x40000, 2


def hide_unified():
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "cannot make a mount namespace")
    if os.path.exists("/sys/fs/cgroup/unified"):
        libc.umount2(b"/sys/fs/cgroup/unified", MNT_DETACH)


def make_bundle():
    os.makedirs(bundle)
    subprocess.run(["crun", "spec"], cwd=bundle, check=True)
    path = os.path.join(bundle, "config.json")
    spec = json.load(open(path))
    spec["process"].update(terminal=False, args=["/true"])
    spec["root"] = {"path": tree, "readonly": False}
    spec["linux"]["resources"] = {
        "memory": {"limit": 128 << 20},
        "cpu": {"quota": 100000, "period": 100000},
        "pids": {"limit": 256},
    }
    spec["linux"].pop("seccomp", None)
    json.dump(spec, open(path, "w"))


def run(name, command):
    time.sleep(float(gap) / 1000)
    begin = time.monotonic_ns()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic_ns() - begin
    if status:
        sys.exit(f"{' '.join(command)}: exit status {status}")
    return {"who": name, "ns": wall, "cpu_ns": int((usage.ru_utime + usage.ru_stime) * 1e9)}


hide_unified()
commands = {"ours": [floor, "once", "--tree", tree, "--command", "/true"]}
if shutil.which("crun"):
    make_bundle()
    commands["crun"] = ["crun", "run", "--bundle", bundle, f"compare-floor-{os.getpid()}"]
for number in range(int(runs) + 1):
    for name, command in commands.items():
        line = run(name, command)
        if number:
            print(json.dumps(line))
