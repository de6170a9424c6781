"""Where a boot of the guest kernel spends its time: joins the emulator's count of instructions, KVM's
trace and the guest's log with the guest's System.map and the host's kallsyms. Prints Markdown."""
import bisect
import collections
import re
import sys

system_map, work = sys.argv[1:]
TOP = 25


class Symbols:
    def __init__(self, path):
        rows = []
        with open(path) as file:
            for line in file:
                words = line.split()
                if len(words) >= 3 and re.fullmatch("[0-9a-f]{16}", words[0]) and words[0] > "ffffffff80":
                    rows.append((int(words[0], 16), words[2] + (" " + words[3] if len(words) > 3 else "")))
        rows.sort()
        self.starts = [start for start, _ in rows]
        self.names = [name for _, name in rows]
        self.at = {name: start for start, name in rows}

    def name(self, address):
        index = bisect.bisect(self.starts, address) - 1
        return self.names[index] if index >= 0 else hex(address)


guest, host = Symbols(system_map), Symbols(work + "/kallsyms")
MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map
host_text = range(host.at["_text"], host.at["_end"])
guest_text = range(guest.at["_text"], guest.at["_end"])
if host_text.start in guest_text or guest_text.start in host_text:
    sys.exit("both kernels lie at the same addresses this time: once more")


def virtual(address):
    return address + MAP if address + MAP in guest_text else address


def table(head, rows):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


# Instructions. Two boots, and PID 1 and its child both make the call that ends a count.
total, by_name = collections.Counter(), collections.Counter()
with open(work + "/insn.2") as file:
    for line in file:
        address, count = line.split()
        address, count = virtual(int(address, 16)), int(count)
        if address in guest_text:
            where, name = "guest kernel", guest.name(address)
        elif address >= 1 << 63:
            where, name = "host kernel", host.name(address)
        else:
            where, name = "user space (monitor and PID 1)", ""
        total[where] += count
        by_name[where, name] += count
print("## Instructions, kernel entry to PID 1's first system call\n")
table(["", "M instructions"], [(name, "%.2f" % (count / 1e6)) for name, count in total.most_common()])
for where in ("guest kernel", "host kernel"):
    rows = [(name, count) for (place, name), count in by_name.most_common() if place == where][:TOP]
    table([where, "M instructions"], [("`%s`" % name, "%.3f" % (count / 1e6)) for name, count in rows])

# Exits and nested page faults.
ranges = [
    ("first MiB", 0, 0x100000),
    ("code", guest.at["_text"] - MAP, guest.at["_etext"] - MAP),
    ("read-only data", guest.at["__start_rodata"] - MAP, guest.at["__end_rodata"] - MAP),
    ("data", guest.at["_sdata"] - MAP, guest.at["_edata"] - MAP),
    ("init", guest.at["__init_begin"] - MAP, guest.at["__init_end"] - MAP),
    ("bss and brk", guest.at["__bss_start"] - MAP, guest.at["_end"] - MAP),
    ("devices", 0xD0000000, 1 << 32),
]
exits, faults, pages, makers = (collections.Counter() for _ in range(4))
seen = set()
with open(work + "/trace") as file:
    for line in file:
        if match := re.search(r"kvm_exit: vcpu 0 reason (\S+)", line):
            exits[match[1]] += 1
        elif match := re.search(r"kvm_page_fault: vcpu 0 rip 0x(\w+) address 0x(\w+) error_code 0x(\w+)", line):
            rip, address, code = (int(word, 16) for word in match.groups())
            place = next((name for name, start, end in ranges if start <= address < end), "other RAM")
            kind = "write" if code & 2 else "execute" if code & 16 else "read"
            faults[place, kind] += 1
            makers[place, kind, guest.name(virtual(rip))] += 1
            if (place, address >> 12) not in seen:
                seen.add((place, address >> 12))
                pages[place] += 1
print("## VM exits\n")
table(["reason", "exits"], exits.most_common())
print("## Nested page faults by guest-physical range\n")
kinds = ("read", "write", "execute")
table(["", "pages", *kinds], [(place, pages[place], *(faults[place, kind] for kind in kinds)) for place, _ in pages.most_common()])
print("## Nested page faults by guest function\n")
table(["function", "range", "access", "faults"], [("`%s`" % name, place, kind, count) for (place, kind, name), count in makers.most_common(TOP)])

# Initcalls.
calls = []
with open(work + "/log", errors="replace") as file:
    for line in file:
        if match := re.search(r"initcall (?:0x)?([0-9a-f]{16}) returned \S+ after (\d+) usecs", line):
            calls.append((int(match[2]), guest.name(int(match[1], 16))))
calls.sort(reverse=True)
print("## Initcalls (%d, %.2f virtual ms)\n" % (len(calls), sum(took for took, _ in calls) / 1000))
table(["initcall", "virtual µs"], [("`%s`" % name, took) for took, name in calls[:TOP]])
