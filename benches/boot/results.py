"""Lines of the measuring program -> OUT.json (every run) and OUT.md (medians)."""
import json
import statistics
import sys

lines, out = sys.argv[1:]
with open(lines) as file:
    runs = [json.loads(line) for line in file if line.startswith("{")]

columns = {}
for run in runs:
    columns.setdefault(run["column"], []).append(run)


def spread(column, figure):
    values = [run[figure] for run in columns[column]]
    return {"n": len(values), "median": statistics.median(values), "min": min(values), "max": max(values)}


summary = {
    column: {figure: spread(column, figure) for figure in rows[0] if figure not in ("column", "run")}
    for column, rows in columns.items()
}
with open(out + ".json", "w") as file:
    json.dump({"clock": "instructions", "memory": "128MiB", "vcpus": 1, "summary": summary, "runs": runs}, file, indent=1)
    file.write("\n")


def cell(column, figure, unit):
    entry = summary.get(column, {}).get(figure)
    if entry is None:
        return "–"
    scale, digits = {"ms": (1e6, 2), "MiB": (1 << 20, 2)}[unit]
    return "%.*f" % (digits, entry["median"] / scale)


MEANING = {
    "bare": "a program that opens KVM and runs a guest to its first exit",
    "ours": "the kernel of `guest/kernel`",
    "peers": "`benches/boot/peers-kernel.config`, as the kernel's makefiles make it",
    "peers-recipe": "that configuration as `guest/kernel/build.sh` makes it",
}
kernels = [column for column in columns if column != "bare" and not column.endswith(" idle")]
with open(out + ".md", "w") as file:
    say = lambda text: print(text, file=file)
    say("Emulated host, time is instructions (1 virtual ms = 1 million); 128 MiB, 1 vCPU; medians of %d runs.\n" % len(columns["bare"]))
    say("; ".join("*%s*: %s" % (column, MEANING[column]) for column in ["bare", *kernels] if column in MEANING) + ".\n")
    say("| virtual ms | bare | " + " | ".join(kernels) + " |")
    say("|---|---|" + "---|" * len(kernels))
    bare = {"exec_to_kernel_ns": "exec_to_exit_ns", "off_to_gone_ns": "exit_to_gone_ns"}
    for figure, name in (
        ("exec_to_kernel_ns", "`execve` → first entry into the guest"),
        ("exec_to_init_ns", "`execve` → PID 1"),
        ("exec_to_workload_ns", "`execve` → PID 1 is about to execute the workload"),
        ("off_to_gone_ns", "power off → process gone, all released"),
    ):
        cells = [cell("bare", bare.get(figure), "ms")] + [cell(kernel, figure, "ms") for kernel in kernels]
        say("| %s | %s |" % (name, " | ".join(cells)))
    say("\n| MiB, guest idle, disk and network card attached | " + " | ".join(kernels) + " |")
    say("|---|" + "---|" * len(kernels))
    for figure, name in (
        ("guest_private_dirty_bytes", "guest RAM, private to this guest"),
        ("guest_rss_bytes", "guest RAM, mapped"),
        ("monitor_uss_bytes", "monitor outside guest RAM, private"),
    ):
        say("| %s | %s |" % (name, " | ".join(cell(kernel + " idle", figure, "MiB") for kernel in kernels)))
print(open(out + ".md").read())
