"""The system calls of a container: an allow list, because every call left out is a part of the host's kernel saved."""
from __future__ import annotations

NEW_NAMESPACES = 0x7E020000
"""Flags of clone(2) that make namespaces; a container that could make them would reach far more of the kernel."""
_EPERM, _ENOSYS = 1, 38

_FILES = """
access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr
fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch ioctl lchown lgetxattr link linkat listxattr llistxattr lremovexattr lseek lsetxattr
lstat mkdir mkdirat mknod mknodat newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read
readahead readlink readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat statfs
statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime utimensat utimes vmsplice
write writev chroot fanotify_mark name_to_handle_at
"""
_PROCESSES = """
arch_prctl capget capset execve execveat exit exit_group fork getegid geteuid getgid getgroups getpgid getpgrp getpid
getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid kill pidfd_getfd pidfd_open
pidfd_send_signal pause personality prctl prlimit64 process_mrelease ptrace process_vm_readv process_vm_writev rseq
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
set_robust_list get_robust_list set_tid_address setfsgid setfsuid setgid setgroups setpgid setpriority setregid
setresgid setresuid setreuid setrlimit setsid setuid tgkill times tkill vfork wait4 waitid ioprio_get ioprio_set
landlock_create_ruleset landlock_add_rule landlock_restrict_self reboot sysinfo uname getcpu syslog
"""
_MEMORY = """
brk madvise membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock
munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages process_madvise modify_ldt
"""
_SIGNALS_AND_TIME = """
alarm clock_getres clock_gettime clock_nanosleep eventfd eventfd2 futex futex_waitv getitimer getrandom gettimeofday
nanosleep restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_tgsigqueueinfo setitimer sigaltstack signalfd signalfd4 time timer_create timer_delete
timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime clock_adjtime adjtimex
"""
_TALKING = """
accept accept4 bind connect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old getpeername getsockname getsockopt io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
listen mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2
poll ppoll pselect6 recvfrom recvmmsg recvmsg select semctl semget semop semtimedop sendmmsg sendmsg sendto
setsockopt shmat shmctl shmdt shmget shutdown socket socketpair
"""
ALLOWED = tuple(sorted("".join((_FILES, _PROCESSES, _MEMORY, _SIGNALS_AND_TIME, _TALKING)).split()))
"""Calls that a container may make whatever their arguments."""


def profile() -> dict[str, object]:
    """The `linux.seccomp` of an OCI bundle. What is not named is refused with EPERM; 32-bit programs are killed."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": list(ALLOWED), "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            # its flags lie in memory, where a filter cannot see them: programs then fall back to clone
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        ],
    }
