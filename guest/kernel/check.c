/* Guest check: runs as PID 1 of the guest kernel and tries each interface that
 * `config` promises. One line each, `ok` or `FAIL`, then the machine is reset
 * by triple fault. Build: gcc -static -O1 -o init check.c (see README.md). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <linux/vm_sockets.h>
#include <mqueue.h>
#include <net/if.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static int failed;

/* `good` is evaluated once; errno belongs to it. */
#define CHECK(name, good)                                                      \
	do {                                                                   \
		errno = 0;                                                     \
		if (good)                                                      \
			printf("ok %s\n", name);                               \
		else                                                           \
			printf("FAIL %s: %s\n", name, strerror(errno)), failed++; \
	} while (0)

static int file_has(const char *path, const char *word)
{
	static char text[65536];
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	close(fd);
	if (n < 0)
		return 0;
	text[n] = 0;
	return strstr(text, word) != NULL;
}

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0755);
	int good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return good;
}

/* Runs `body` in a child: its effects on the process stay there. */
static int in_child(int (*body)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(body() ? 0 : 1);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static int loopback(int family)
{
	struct sockaddr_in a4 = { AF_INET, htons(7), { htonl(INADDR_LOOPBACK) } };
	struct sockaddr_in6 a6 = { AF_INET6, htons(7), 0, IN6ADDR_LOOPBACK_INIT, 0 };
	struct sockaddr *a = family == AF_INET ? (void *)&a4 : (void *)&a6;
	socklen_t len = family == AF_INET ? sizeof(a4) : sizeof(a6);
	int listener = socket(family, SOCK_STREAM, 0), client = socket(family, SOCK_STREAM, 0);
	char byte = 0;
	int good = !bind(listener, a, len) && !listen(listener, 1) && !connect(client, a, len);

	if (good) {
		int server = accept(listener, 0, 0);

		good = write(client, "x", 1) == 1 && read(server, &byte, 1) == 1 && byte == 'x';
		close(server);
	}
	close(listener), close(client);
	return good;
}

static int all_namespaces(void)
{
	return !unshare(CLONE_NEWUSER) &&
	       !unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET |
			CLONE_NEWCGROUP | 0x80 /* CLONE_NEWTIME */);
}

static int seccomp_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, code };

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) &&
	       syscall(SYS_getppid) == -1 && errno == 77;
}

static int drop_user(void)
{
	return !setgid(1000) && !setuid(1000) && geteuid() == 1000 && open("/proc/1/mem", O_RDONLY) < 0;
}

static int run_script(void)
{
	put("/tmp/script", "#!/init script\n");
	execl("/tmp/script", "script", (char *)0);
	return 0;
}

static int other_cpu_runs(void)
{
	cpu_set_t set;
	int cpu, n = sysconf(_SC_NPROCESSORS_ONLN);

	for (cpu = 0; cpu < n; cpu++) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set) || sched_getcpu() != cpu)
			return 0;
	}
	printf("info cpus %d\n", n);
	return 1;
}

static void check_files(void)
{
	struct { struct file_handle handle; char room[128]; } file = { { 128 } };
	int mount_id;

	CHECK("proc", !mount("proc", "/proc", "proc", 0, 0));
	CHECK("sysfs", !mount("sysfs", "/sys", "sysfs", 0, 0));
	CHECK("devtmpfs", !mount("dev", "/dev", "devtmpfs", 0, 0));
	mkdir("/dev/pts", 0755), mkdir("/dev/shm", 01777), mkdir("/dev/mqueue", 0755);
	CHECK("devpts", !mount("pts", "/dev/pts", "devpts", 0, "ptmxmode=0666"));
	CHECK("shm", !mount("shm", "/dev/shm", "tmpfs", 0, 0) && shm_open("/a", O_CREAT | O_RDWR, 0600) >= 0);
	CHECK("mqueue", !mount("mq", "/dev/mqueue", "mqueue", 0, 0) && mq_open("/q", O_CREAT | O_RDWR, 0600, 0) >= 0);
	CHECK("tmpfs", !mount("tmp", "/tmp", "tmpfs", 0, 0) && put("/tmp/a", "a"));
	CHECK("xattr on tmpfs", !setxattr("/tmp/a", "trusted.a", "a", 1, 0));
	CHECK("acl on tmpfs", !setxattr("/tmp/a", "system.posix_acl_access",
		"\2\0\0\0\1\0\7\0\377\377\377\377\4\0\5\0\377\377\377\377\40\0\5\0\377\377\377\377", 28, 0));
	CHECK("file handles", !name_to_handle_at(AT_FDCWD, "/tmp/a", &file.handle, &mount_id, 0));
	CHECK("erofs on virtio-blk", !mount("/dev/vda", "/ro", "erofs", MS_RDONLY, 0));
	mkdir("/tmp/up", 0755), mkdir("/tmp/work", 0755);
	CHECK("overlay", !mount("o", "/mnt", "overlay", 0, "lowerdir=/ro,upperdir=/tmp/up,workdir=/tmp/work") &&
		file_has("/mnt/hello", "hello") && put("/mnt/hello", "HELLO") && file_has("/mnt/hello", "HELLO") &&
		file_has("/ro/hello", "hello"));
	CHECK("flock", !lockf(open("/tmp/a", O_RDWR), F_LOCK, 0));
	CHECK("smaps_rollup", file_has("/proc/self/smaps_rollup", "Pss"));
	CHECK("coredump", file_has("/proc/sys/kernel/core_pattern", "core"));
	CHECK("script", in_child(run_script));
}

static void check_calls(void)
{
	struct io_uring_params ring = { 0 };
	struct epoll_event event = { EPOLLIN };
	struct itimerspec soon = { { 0 }, { 0, 1000000 } };
	aio_context_t aio = 0;
	char bytes[16];
	char *page = mmap(0, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec here = { bytes, 16 }, there = { page, 16 };
	int epoll = epoll_create1(0), tick = timerfd_create(CLOCK_MONOTONIC, 0), word = 0, master, slave;
	timer_t timer;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK("getrandom at once", getrandom(bytes, 16, GRND_NONBLOCK) == 16);
	CHECK("futex", syscall(SYS_futex, &word, 0, 1, 0) == -1 && errno == EAGAIN);
	CHECK("timerfd + epoll", !timerfd_settime(tick, 0, &soon, 0) && !epoll_ctl(epoll, EPOLL_CTL_ADD, tick, &event) &&
		epoll_wait(epoll, &event, 1, 1000) == 1);
	CHECK("eventfd", eventfd(0, 0) >= 0);
	CHECK("signalfd", signalfd(-1, &set, 0) >= 0);
	CHECK("posix timer", !timer_create(CLOCK_MONOTONIC, 0, &timer));
	CHECK("io_uring", syscall(SYS_io_uring_setup, 4, &ring) >= 0);
	CHECK("aio", !syscall(SYS_io_setup, 4, &aio));
	CHECK("inotify", inotify_add_watch(inotify_init1(0), "/tmp", IN_CREATE) >= 0);
	CHECK("memfd", memfd_create("m", MFD_ALLOW_SEALING) >= 0);
	CHECK("madvise huge", !madvise(page, 4 << 20, MADV_HUGEPAGE));
	CHECK("membarrier", syscall(SYS_membarrier, 0, 0) > 0);
	CHECK("process_vm_readv", process_vm_readv(getpid(), &here, 1, &there, 1, 0) == 16);
	CHECK("userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC) >= 0);
	CHECK("kcmp", !syscall(SYS_kcmp, 1, 1, 0, 1, 1));
	CHECK("keyctl", syscall(SYS_keyctl, 0, -3, 1) > 0);
	CHECK("pidfd", syscall(SYS_pidfd_open, 1, 0) >= 0);
	CHECK("rseq", syscall(SYS_rseq, page + 4096, 32, 0, 0x53053053) == 0 || errno == EBUSY || errno == EINVAL);
	CHECK("sysv ipc", shmget(IPC_PRIVATE, 4096, 0600) >= 0 && semget(IPC_PRIVATE, 1, 0600) >= 0 && msgget(IPC_PRIVATE, 0600) >= 0);
	CHECK("pty", !openpty(&master, &slave, 0, 0, 0));
	CHECK("users", in_child(drop_user));
	CHECK("seccomp filter", in_child(seccomp_filter));
	CHECK("namespaces", in_child(all_namespaces));
	CHECK("ioperm", !ioperm(0x80, 1, 1) && (outb(1, 0x80), 1));
	CHECK("smp", in_child(other_cpu_runs));
}

static void check_network(void)
{
	struct ifreq lo = { { "lo" } }, eth = { { "eth0" } };
	struct sockaddr_nl kernel = { AF_NETLINK };
	int s = socket(AF_INET, SOCK_DGRAM, 0), pair[2];

	lo.ifr_flags = eth.ifr_flags = IFF_UP;
	CHECK("loopback up", !ioctl(s, SIOCSIFFLAGS, &lo));
	CHECK("ipv4", loopback(AF_INET));
	CHECK("ipv6", loopback(AF_INET6));
	CHECK("unix", !socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	CHECK("packet", socket(AF_PACKET, SOCK_RAW, htons(3)) >= 0);
	CHECK("netlink", !bind(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), (void *)&kernel, sizeof(kernel)));
	CHECK("vsock", socket(AF_VSOCK, SOCK_STREAM, 0) >= 0);
	CHECK("virtio-net", !ioctl(s, SIOCSIFFLAGS, &eth));
}

static void check_cgroup(void)
{
	CHECK("cgroup2", !mount("cg", "/sys/fs/cgroup", "cgroup2", 0, 0));
	CHECK("controllers", put("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +memory +pids +io"));
	/* A kernel without SMP has no CPUs to choose from. */
	if (sysconf(_SC_NPROCESSORS_CONF) > 1)
		CHECK("cpuset", put("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset"));
	mkdir("/sys/fs/cgroup/a", 0755);
	CHECK("memory.max", put("/sys/fs/cgroup/a/memory.max", "16777216"));
	CHECK("cpu.max", put("/sys/fs/cgroup/a/cpu.max", "50000 100000"));
	CHECK("pids.max", put("/sys/fs/cgroup/a/pids.max", "10"));
	CHECK("io.max", put("/sys/fs/cgroup/a/io.max", "254:0 rbps=1048576") || errno == ENODEV);
}

int main(int argc, char **argv)
{
	unsigned long long tsc = __builtin_ia32_rdtsc();
	struct timespec now;

	if (argc > 1 && !strcmp(argv[1], "script"))
		return 0;
	setbuf(stdout, 0);
	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("init tsc %llu monotonic_ns %lld\n", tsc, now.tv_sec * 1000000000LL + now.tv_nsec);
	if (!getenv("quick")) {
		mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/tmp", 0755), mkdir("/ro", 0755), mkdir("/mnt", 0755);
		check_files();
		check_calls();
		check_network();
		check_cgroup();
		printf("%d failed\n", failed);
	}
	reboot(RB_AUTOBOOT);
	return 1;
}
