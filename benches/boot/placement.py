"""Which sections of the guest kernel a boot and a small program's life touch: joins the emulator's
profile (OUT.N and OUT.data.N of insn-profile.c) with the kernel's build directory. Prints the list
that guest/kernel/build.sh has the linker place in front of the rest.

    placement.py BUILD_DIR PROFILE N
"""
import bisect
import collections
import re
import subprocess
import sys

build, profile, number = sys.argv[1:]
MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map


def readelf(option):
    command = ["readelf", "-W", option, build + "/vmlinux.o"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


# Sections by index, and the names of symbols in those that have a name of their own.
sections = {}
for line in readelf("-S"):
    if match := re.match(r"\s*\[\s*(\d+)\] (\.\S+)", line):
        sections[match[1]] = match[2]
PLACED = re.compile(r"\.(text|rodata|data|bss)\.[0-9A-Za-z_][^$]*")
in_section = collections.defaultdict(set)
for line in readelf("-s"):
    words = line.split()
    if len(words) == 8 and PLACED.fullmatch(sections.get(words[6], "")):
        in_section[words[7]].add(sections[words[6]])

# The final addresses.
symbols = []
with open(build + "/System.map") as file:
    for line in file:
        address, _, name = line.split()
        symbols.append((int(address, 16), name))
symbols.sort()
starts = [start for start, _ in symbols]
at = {name: start for start, name in symbols}


def touched(address):
    """The sections of all symbols that lie where the one at this address lies."""
    index = bisect.bisect(starts, address) - 1
    first = bisect.bisect_left(starts, starts[index]) if index >= 0 else 0
    for _, name in symbols[first : index + 1]:
        yield from in_section.get(name, ())


executed, read, written = set(), set(), set()
with open("%s.%s" % (profile, number)) as file:
    for line in file:
        address = int(line.split()[0], 16)
        # Before it maps itself, the kernel runs where it was loaded.
        if at["_text"] <= address + MAP < at["_end"]:
            address += MAP
        if at["_text"] <= address < at["_end"]:
            executed.update(touched(address))
with open("%s.data.%s" % (profile, number)) as file:
    for line in file:
        address, kind = line.split()
        (written if kind == "w" else read).update(touched(int(address, 16)))

# Functions that are patched at boot, by what the CPU can do and by what is called, executed or not.
LISTS = re.compile(r"'\.rela\.(altinstructions|static_call_sites|parainstructions)'")
patched, here = set(), False
for line in readelf("-r"):
    if line.startswith("Relocation section"):
        here = LISTS.search(line)
    elif here and (match := re.search(r"R_X86_64_(?:PC32|64)\s+\S+\s+(\S+)", line)):
        patched.update({match[1]} | in_section.get(match[1], set()))


def tell(comment, names, *but):
    names = sorted(name for name in names.difference(*but) if PLACED.fullmatch(name))
    print("# %s: %d" % (comment, len(names)))
    print("\n".join(names))


def of(kind, names):
    return {name for name in names if name.startswith(kind)}


print("# Sections of the kernel that a boot to PID 1 and a small program's life touch, in the order in")
print("# which the linker is to place them. Made by `benches/microvm-boot placement BUILD_DIR`.")
tell("code patched at boot", of(".text.", patched))
tell("code executed", of(".text.", executed), patched)
tell("data written", of(".data.", written))
tell("data only read", of(".data.", read), written)
tell("bss", of(".bss.", read | written))
tell("read-only data", of(".rodata.", read), {n for n in read if ".str" in n})
