#!/bin/sh
# Builds the guest kernel: build.sh SOURCE_DIR BUILD_DIR OUT_VMLINUX
#
# SOURCE_DIR  an unpacked Linux source tree (6.1 or later); only read.
# BUILD_DIR   where make works; may be fresh or hold an earlier build.
# OUT_VMLINUX the result, replaced atomically.
#
# Needs make, gcc, flex, bison, bc and libelf's headers; no network. Progress
# goes to stdout as make prints it, errors to stderr.
# GUEST_KERNEL_FRAGMENT names further options (a file of the same form), which
# override those of `config`: for experiments.
set -eu

if [ $# -ne 3 ]; then
	echo "usage: $0 SOURCE_DIR BUILD_DIR OUT_VMLINUX" >&2
	exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
source_dir=$(cd "$1" && pwd)
mkdir -p "$2" "$(dirname "$3")"
build_dir=$(cd "$2" && pwd)
out_dir=$(cd "$(dirname "$3")" && pwd)
out=$out_dir/$(basename "$3")

for tool in make gcc flex bison bc; do
	command -v "$tool" >/dev/null || {
		echo "$0: $tool: not found: install make gcc flex bison bc libelf-dev" >&2
		exit 1
	}
done
[ -f "$source_dir/Kbuild" ] || {
	echo "$0: $source_dir: not a Linux source tree" >&2
	exit 1
}

# Nothing of the builder's environment may reach the binary.
unset LOCALVERSION KCFLAGS KAFLAGS KCPPFLAGS MAKEFLAGS MAKELEVEL ARCH CROSS_COMPILE LLVM
export LC_ALL=C TZ=UTC
export KBUILD_BUILD_TIMESTAMP='1970-01-01 00:00:00 UTC'
export KBUILD_BUILD_USER=compare KBUILD_BUILD_HOST=compare KBUILD_BUILD_VERSION=1

# Each function and each variable gets a section of its own, which the linker can place; the
# definition has the kernel's linker script take sections of such names.
kmake() {
	make -C "$source_dir" O="$build_dir" ARCH=x86_64 \
		KCFLAGS="-ffunction-sections -fdata-sections" \
		CPPFLAGS_vmlinux.lds="-Ux86_64 -DCONFIG_LD_DEAD_CODE_DATA_ELIMINATION" "$@"
}

echo "configuring $(kmake -s kernelversion)"
fragment=$build_dir/fragment.config
cat "$here/config" ${GUEST_KERNEL_FRAGMENT:+"$GUEST_KERNEL_FRAGMENT"} >"$fragment"
kmake -s KCONFIG_ALLCONFIG="$fragment" allnoconfig

# Kconfig drops what it does not know or whose dependencies fail, in silence.
lost=$(awk '
	FNR == NR {
		if (match($0, /^CONFIG_[A-Z0-9_a-z]+=/))
			have[substr($0, 1, RLENGTH - 1)] = substr($0, RLENGTH + 1)
		next
	}
	/^# optional$/ { optional = 1; next }
	match($0, /^CONFIG_[A-Z0-9_a-z]+=/) {
		name = substr($0, 1, RLENGTH - 1)
		want[name] = substr($0, RLENGTH + 1)
		may_miss[name] = optional
	}
	{ optional = 0 }
	END {
		for (name in want) {
			got = (name in have) ? have[name] : "n"
			if (got != want[name] && !(may_miss[name] && got == "n"))
				print "  " name "=" want[name] " became " got
		}
	}' "$build_dir/.config" "$fragment" | sort)
if [ -n "$lost" ]; then
	echo "$0: options that this source tree does not honour:" >&2
	echo "$lost" >&2
	exit 1
fi

# What a boot touches lies together, in front of the rest: each page that is touched costs a fault,
# and two if it is written. `placement` names the sections; a name that this source does not have
# matches nothing. Assembly, which has no sections of its own to name, follows the listed functions.
kmake -j"$(nproc)" arch/x86/kernel/vmlinux.lds
awk '
	FNR == NR {
		if (match($0, /^\.(text|rodata|data|bss)\./))
			placed[substr($0, 2, RLENGTH - 2)] = placed[substr($0, 2, RLENGTH - 2)] "*(" $0 ") "
		next
	}
	{
		found += sub(/\*\(\.text\.hot /, placed["text"] "*(.text) &")
		found += sub(/\*\(\.rodata\) /, placed["rodata"] "&")
		found += sub(/\*\(\.data \.data\./, placed["data"] "&")
		found += sub(/\*\(\.bss \.bss\./, placed["bss"] "&")
		print
	}
	END {
		if (found != 4)
			print "warning: not all sections are placed: the linker script has other words" >"/dev/stderr"
	}' "$here/placement" "$build_dir/arch/x86/kernel/vmlinux.lds" >"$build_dir/placed.lds"

# Work that Kconfig cannot take out of the boot. The source stays as it is: single files are compiled
# with a definition more, or with a header in front that says what it does. The README has the prices.
#
# memblock.o: in __init code gcc clears memory by an inline `rep stosb`: one instruction a byte where
# instructions are counted, and slow without ERMS. memblock clears the page structs (16 MiB per GiB
# of guest memory) that way.
# slub.o, params.o: two parts of sysfs that no program in a guest reads, /sys/kernel/slab, and
# /sys/module/*/parameters of built-in code, which params.c makes from the array that ends where it
# is here told to start (the command line is parsed elsewhere, with the whole array).
# head64.o: bss and brk are zero already, as an ELF loader must leave what a segment has beyond its
# file's bytes (System V ABI, chapter 5): the kernel need not write each of their pages.
# alternative.o: no list of calls through retpolines. With it the kernel decodes all 3,800 of them,
# on two thirds of its code pages, to put an indirect call in place on CPUs that need no retpoline;
# without, those go through the thunk, which is patched as ever.
# x86_init.o: no ROMs are looked for between 640 KiB and 1 MiB: there is no firmware.
# init_64.o: the kernel keeps the padding behind its code and its read-only data, which nobody
# touched, instead of splitting three large pages and giving 900 small ones to the allocator.
# The other headers say at their top what they spare.
kmake -j"$(nproc)" vmlinux KBUILD_LDS=placed.lds \
	CFLAGS_memblock.o=-mstringop-strategy=libcall \
	CFLAGS_slub.o="-include $here/no-slab-sysfs.h" \
	CFLAGS_params.o=-D__start___param=__stop___param \
	CFLAGS_head64.o="-D__bss_stop=__bss_start -D__brk_limit=__brk_base" \
	CFLAGS_alternative.o=-D__retpoline_sites_end=__retpoline_sites \
	CFLAGS_x86_init.o="-Dprobe_roms=x86_init_noop -include $here/no-real-mode.h" \
	CFLAGS_apic.o="-include $here/quiet-ioapic.h" \
	CFLAGS_init.o="-include $here/plain-init-pages.h" \
	CFLAGS_buffered-io.o="-include $here/no-iomap-writeback.h" \
	CFLAGS_dax.o="-include $here/small-dax-table.h" \
	CFLAGS_fork.o="-include $here/boot-stacks.h" \
	CFLAGS_i8259.o="-include $here/prompt-i8259.h" \
	CFLAGS_init_64.o="-D_etext=__start_rodata -D_sdata=__end_rodata \
		-include $here/fresh-page-tables.h -include $here/one-vmalloc-table.h"

# What is left to strip: symbol tables of no use at run time.
strip -s -o "$out.tmp.$$" "$build_dir/vmlinux"
mv -f "$out.tmp.$$" "$out"
size "$out"
