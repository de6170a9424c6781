"""Tables from what benches/container-floor measured, or from the kernel's trace of one start."""
import collections
import json
import os
import re
import statistics
import sys


def trace(lines):
    """System calls of one start in the order of their cost; what scheduling lies within is counted."""
    names, path = {}, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
    for line in open(path) if os.path.exists(path) else []:
        if found := re.match(r"#define __NR_(\w+) (\d+)", line):
            names[int(found[2])] = found[1]
    begun, cost, count, faults, first, last = {}, collections.Counter(), collections.Counter(), 0, None, None
    for line in lines:
        found = re.match(r"\s*(\S+)-(\d+)\s+\[\d+\]\s+\S+\s+([\d.]+): (\S+?): (.*)", line)
        if not found:
            continue
        pid, at, event, rest = found[2], float(found[3]) * 1e6, found[4], found[5]
        first, last = first or at, at
        if event == "sys_enter":
            begun[pid] = (int(re.match(r"NR (\d+)", rest)[1]), at)
        elif event == "sys_exit" and pid in begun:
            number, since = begun.pop(pid)
            name = names.get(number, str(number))
            if name not in ("ppoll", "poll"):
                cost[name] += at - since
                count[name] += 1
        elif event.startswith("page_fault"):
            faults += 1
    print(f"{last - first:.0f} µs with tracing, {sum(count.values())} system calls, {faults} page faults\n")
    print("| system call | times | µs |\n| :-- | --: | --: |")
    for name, us in cost.most_common(25):
        print(f"| {name} | {count[name]} | {us:.0f} |")


def read(work, name):
    path = os.path.join(work, name)
    return [json.loads(line) for line in open(path) if line.startswith("{")] if os.path.exists(path) else []


def median(values):
    values = list(values)
    return statistics.median(values) if values else None


def us(value):
    return "–" if value is None else f"{value / 1000:,.0f}"


def ms(value):
    return "–" if value is None else f"{value / 1e6:.2f}"


def results(work, revision, out):
    record = {"revision": revision}
    hosts = [(host, gap) for host in ("lab", "here") for gap in (100, 0) if read(work, f"{host}.whole.{gap}")]
    title = {"lab": "emulated host", "here": "this host"}
    when = {100: "cold", 0: "in a row"}
    heads = [f"{title[host]}, {when[gap]}" for host, gap in hosts]
    lines = ["# What a container's start is made of", "", f"`benches/container-floor`, {revision}. Cold is after 100 ms "
             "of idleness. The emulated host counts instructions (docs/lab.md): its µs are virtual. Medians; all "
             "namespaces but user, the default mounts, memory, cpu and pids limits, the system call filter.", ""]

    def table(name, rows):
        lines.extend([f"| {name} | " + " | ".join(heads) + " |", "| :-- |" + " --: |" * len(heads)])
        lines.extend(f"| {label} | " + " | ".join(cells) + " |" for label, cells in rows)
        lines.append("")

    rows = []
    for label, key in (("namespaces and cgroup exist", "created"), ("first instruction inside", "init"),
                       ("execve", "exec"), ("exited", "ready"), ("all released", "stopped")):
        cells = []
        for host, gap in hosts:
            value = median(run[key] for run in read(work, f"{host}.whole.{gap}"))
            record.setdefault("whole", {}).setdefault(f"{host}.{gap}", {})[key] = value
            cells.append(us(value))
        rows.append((label, cells))
    lines += ["## A program that returns 0, from the request", ""]
    table("µs", rows)

    names = list(dict.fromkeys(step["step"] for host, gap in hosts for step in read(work, f"{host}.steps.{gap}")))
    rows = []
    for name in names:
        cells = []
        for host, gap in hosts:
            steps = [step for step in read(work, f"{host}.steps.{gap}") if step["step"] == name]
            took, after = median(s["ns"] for s in steps), median(s["release_ns"] for s in steps)
            record.setdefault("steps", {}).setdefault(f"{host}.{gap}", {})[name] = {"ns": took, "release_ns": after}
            cells.append(f"{us(took)} + {us(after)}" if after else us(took))
        rows.append((name, cells))
    lines += ["## Each step in a process of its own", "", "What it takes, and from there until the process is reaped "
              "(`fork and exit` is what is not the step's).", ""]
    table("µs", rows)

    for gap in (100, 0):
        runs = read(work, f"here.versus.{gap}")
        if not runs:
            continue
        lines += [f"## One container as a process of its own, this host, {when[gap]}", "",
                  "| ms | wall | CPU |", "| :-- | --: | --: |"]
        for who in dict.fromkeys(run["who"] for run in runs):
            wall = median(run["ns"] for run in runs if run["who"] == who)
            cpu = median(run["cpu_ns"] for run in runs if run["who"] == who)
            record.setdefault("versus", {}).setdefault(str(gap), {})[who] = {"ns": wall, "cpu_ns": cpu}
            lines.append(f"| {who}{' (without a filter)' if who == 'crun' else ''} | {ms(wall)} | {ms(cpu)} |")
        lines.append("")
    with open(out + ".json", "w") as file:
        json.dump(record, file, indent=1, sort_keys=True)
        file.write("\n")
    with open(out + ".md", "w") as file:
        file.write("\n".join(lines).rstrip() + "\n")


if sys.argv[1] == "trace":
    trace(open(sys.argv[2]))
else:
    results(*sys.argv[2:])
