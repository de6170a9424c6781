# Sourced by the other scripts: installs packages, finds Rust, builds the programs. Everything here
# announces itself, does nothing when there is nothing to do, and may run twice at once (apt and
# cargo wait for each other's locks).

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
target=${CARGO_TARGET_DIR:-$root/target}
bin=$target/x86_64-unknown-linux-gnu/release

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# What is installed is told by a program or file of each package, so that no package manager is
# asked when all is there.
#   PACKAGE:FILE
packages=(
	gcc:cc make:make bc:bc bison:bison flex:flex xz-utils:xz zstd:zstd cpio:cpio
	libelf-dev:/usr/include/libelf.h libssl-dev:/usr/include/openssl/ssl.h
	libc6-dev:/usr/include/stdio.h perl:perl python3:python3
	erofs-utils:mkfs.erofs qemu-system-x86:qemu-system-x86_64 ca-certificates:/etc/ssl/certs/ca-certificates.crt
)

has() {
	case $1 in /*) [ -e "$1" ] ;; *) command -v "$1" >/dev/null ;; esac
}

need_packages() {
	local missing=() entry
	for entry in "${packages[@]}"; do
		has "${entry#*:}" || missing+=("${entry%%:*}")
	done
	[ ${#missing[@]} -eq 0 ] && { ! lists_are_missing || [ "$(id -u)" -ne 0 ]; } && return
	if ! command -v apt-get >/dev/null; then
		die "this is not Debian or Ubuntu; install what these packages of theirs hold, then run this again: ${missing[*]}"
	fi
	local as_root=()
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null || die "not root and no sudo: ask an administrator for: apt-get install ${missing[*]}"
		say "packages: sudo may ask for your password"
		as_root=(sudo)
	fi
	local begin=$SECONDS
	say "packages: ${missing[*]:-list of what there is} (apt)"
	"${as_root[@]}" apt-get -o DPkg::Lock::Timeout=600 -qq update >&2 ||
		die "apt-get update failed: see above"
	if [ ${#missing[@]} -gt 0 ]; then
		"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq -y \
			--no-install-recommends install "${missing[@]}" >&2 || die "apt-get install failed: see above"
	fi
	say "packages: done in $((SECONDS - begin)) s"
}

# A fresh machine may have no package lists at all; the workload's packages come from apt too.
lists_are_missing() {
	command -v apt-get >/dev/null && ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null
}

need_rust() {
	# A distribution's own cargo is too old and ignores rust-toolchain.toml: rustup's goes first.
	[ -n "${HOME:-}" ] && PATH=$HOME/.cargo/bin:$PATH
	if ! command -v cargo >/dev/null && command -v apt-get >/dev/null && [ -n "$(apt-cache policy rustup 2>/dev/null)" ]; then
		say "rustup (apt)"
		local as_root=()
		[ "$(id -u)" -eq 0 ] || as_root=(sudo)
		"${as_root[@]}" apt-get -qq -y --no-install-recommends install rustup >&2 || true
	fi
	command -v cargo >/dev/null ||
		die "no Rust toolchain: install rustup (https://rustup.rs), then run this again; it will pick the version that rust-toolchain.toml names"
}

# Builds the programs if a source is newer than they are.
need_programs() {
	# Touched after a build that succeeded. A commit counts as a change: records name the revision.
	local stamp=$bin/.built sources=(Cargo.toml Cargo.lock rust-toolchain.toml .cargo crates guest)
	[ -e "$root/.git/logs/HEAD" ] && sources+=(.git/logs/HEAD)
	if [ -e "$stamp" ] && [ -z "$(cd "$root" && find "${sources[@]}" -newer "$stamp" -print -quit)" ]; then
		return
	fi
	local begin=$SECONDS
	say "programs: cargo build --release"
	(cd "$root" && cargo build --release --locked --bins) >&2 || die "the build failed: see above"
	touch "$stamp"
	say "programs: done in $((SECONDS - begin)) s"
}
