/* What sandboxed code may ask the kernel for: data only, one reason a theme.
 *
 * Included by seccomp_compile.c, which defines
 *   ALLOW(name)                 always
 *   DENY(name, error)           refused with that errno
 *   WHEN(name, check, error)    allowed when the check (by that name in
 *                               seccomp_compile.c) passes, else that errno
 *   ZYGOTE(name, error)         as DENY, but a zygote itself may: its children
 *                               enter sandboxes by it, and lose it there
 * A call listed nowhere answers ENOSYS, as an older kernel would: libraries fall
 * back. Calls with a newer variant behind a pointer that no filter can look
 * through (clone3) answer ENOSYS as well, so that libc takes the older one.
 *
 * Started from Docker's default profile, less what Lambda also refuses
 * (ptrace), less what a function has no use for (System V IPC stays: Python and
 * Ruby libraries use it; the namespace is the sandbox's own).
 */

/* Files: reading and writing. */
ALLOW(read) ALLOW(write) ALLOW(readv) ALLOW(writev) ALLOW(pread64) ALLOW(pwrite64)
ALLOW(preadv) ALLOW(pwritev) ALLOW(preadv2) ALLOW(pwritev2) ALLOW(lseek) ALLOW(close)
ALLOW(close_range) ALLOW(sendfile) ALLOW(splice) ALLOW(tee) ALLOW(vmsplice)
ALLOW(copy_file_range) ALLOW(readahead) ALLOW(fadvise64) ALLOW(fallocate) ALLOW(truncate)
ALLOW(ftruncate) ALLOW(fsync) ALLOW(fdatasync) ALLOW(sync_file_range)
/* Writes back every disk of the host. Nothing inside outlives the sandbox, so nothing need be on disk: done. */
DENY(sync, 0) DENY(syncfs, 0)

/* Files: opening and naming. The mount namespace decides what is there. */
ALLOW(open) ALLOW(openat) ALLOW(openat2) ALLOW(creat) ALLOW(mkdir) ALLOW(mkdirat) ALLOW(rmdir)
ALLOW(link) ALLOW(linkat) ALLOW(symlink) ALLOW(symlinkat) ALLOW(unlink) ALLOW(unlinkat)
ALLOW(rename) ALLOW(renameat) ALLOW(renameat2) ALLOW(readlink) ALLOW(readlinkat) ALLOW(chdir)
ALLOW(fchdir) ALLOW(getcwd) ALLOW(getdents) ALLOW(getdents64) ALLOW(umask)
/* mknod makes pipes and sockets; devices need a capability nobody has. */
ALLOW(mknod) ALLOW(mknodat)

/* Files: attributes. */
ALLOW(stat) ALLOW(lstat) ALLOW(fstat) ALLOW(newfstatat) ALLOW(statx) ALLOW(statfs) ALLOW(fstatfs)
ALLOW(access) ALLOW(faccessat) ALLOW(faccessat2) ALLOW(chmod) ALLOW(fchmod) ALLOW(fchmodat)
ALLOW(fchmodat2) ALLOW(chown) ALLOW(lchown) ALLOW(fchown) ALLOW(fchownat) ALLOW(utime)
ALLOW(utimes) ALLOW(futimesat) ALLOW(utimensat) ALLOW(setxattr) ALLOW(lsetxattr) ALLOW(fsetxattr)
ALLOW(getxattr) ALLOW(lgetxattr) ALLOW(fgetxattr) ALLOW(listxattr) ALLOW(llistxattr)
ALLOW(flistxattr) ALLOW(removexattr) ALLOW(lremovexattr) ALLOW(fremovexattr)

/* Descriptors, waiting for them, events. */
ALLOW(dup) ALLOW(dup2) ALLOW(dup3) ALLOW(fcntl) ALLOW(flock) ALLOW(pipe) ALLOW(pipe2)
ALLOW(select) ALLOW(pselect6) ALLOW(poll) ALLOW(ppoll) ALLOW(epoll_create) ALLOW(epoll_create1)
ALLOW(epoll_ctl) ALLOW(epoll_ctl_old) ALLOW(epoll_wait) ALLOW(epoll_wait_old) ALLOW(epoll_pwait)
ALLOW(epoll_pwait2) ALLOW(eventfd) ALLOW(eventfd2) ALLOW(inotify_init) ALLOW(inotify_init1)
ALLOW(inotify_add_watch) ALLOW(inotify_rm_watch) ALLOW(signalfd) ALLOW(signalfd4)
ALLOW(timerfd_create) ALLOW(timerfd_settime) ALLOW(timerfd_gettime)
WHEN(memfd_create, usual_memory_file, ENOMEM)
/* Pushing input into a terminal (TIOCSTI, TIOCLINUX) is how one escapes into the shell that started it. Of
 * btrfs's own requests, a nested subvolume would lie outside the quota of /tmp. */
WHEN(ioctl, harmless_request, EPERM)

/* Memory. Huge pages that the host set aside are outside the memory limit. */
WHEN(mmap, usual_mapping, ENOMEM)
ALLOW(brk) ALLOW(munmap) ALLOW(mremap) ALLOW(mprotect) ALLOW(madvise) ALLOW(msync)
ALLOW(mincore) ALLOW(mlock) ALLOW(mlock2) ALLOW(munlock) ALLOW(mlockall) ALLOW(munlockall)
ALLOW(membarrier) ALLOW(remap_file_pages) ALLOW(mseal) ALLOW(map_shadow_stack)
/* Protection keys: V8 and the JVM ask for them. */
ALLOW(pkey_alloc) ALLOW(pkey_free) ALLOW(pkey_mprotect)
/* NUMA placement of one's own memory: .NET and the JVM ask and go on without. */
ALLOW(get_mempolicy) ALLOW(set_mempolicy) ALLOW(mbind)

/* Processes and threads. New namespaces, user namespaces first, are where most
 * local root exploits begin. */
WHEN(clone, no_new_namespace, EPERM)
ZYGOTE(clone3, ENOSYS) /* its flags hide behind a pointer; libc falls back to clone */
ALLOW(fork) ALLOW(vfork) ALLOW(execve) ALLOW(execveat) ALLOW(exit) ALLOW(exit_group) ALLOW(wait4)
ALLOW(waitid) ALLOW(kill) ALLOW(tkill) ALLOW(tgkill) ALLOW(pidfd_open) ALLOW(pidfd_send_signal)
ALLOW(set_tid_address) ALLOW(set_robust_list) ALLOW(get_robust_list) ALLOW(rseq)
ALLOW(futex) ALLOW(futex_waitv) ALLOW(futex_wake) ALLOW(futex_wait) ALLOW(futex_requeue)
ALLOW(arch_prctl) ALLOW(prctl) ALLOW(set_thread_area) ALLOW(get_thread_area)
WHEN(personality, known_personality, EPERM)

/* Signals. */
ALLOW(rt_sigaction) ALLOW(rt_sigprocmask) ALLOW(rt_sigpending) ALLOW(rt_sigsuspend)
ALLOW(rt_sigtimedwait) ALLOW(rt_sigqueueinfo) ALLOW(rt_tgsigqueueinfo) ALLOW(rt_sigreturn)
ALLOW(sigaltstack) ALLOW(pause) ALLOW(restart_syscall)

/* Who one is. Becoming somebody else needs a capability; libraries ask anyway. */
ALLOW(getpid) ALLOW(getppid) ALLOW(gettid) ALLOW(getpgid) ALLOW(getpgrp) ALLOW(setpgid)
ALLOW(getsid) ALLOW(setsid) ALLOW(getuid) ALLOW(geteuid) ALLOW(getgid) ALLOW(getegid)
ALLOW(getresuid) ALLOW(getresgid) ALLOW(getgroups) ALLOW(setuid) ALLOW(setgid) ALLOW(setreuid)
ALLOW(setregid) ALLOW(setresuid) ALLOW(setresgid) ALLOW(setgroups) ALLOW(setfsuid) ALLOW(setfsgid)
ALLOW(capget) ALLOW(capset)

/* Scheduling and limits, of oneself: the cgroup bounds the rest. */
ALLOW(sched_yield) ALLOW(sched_getaffinity) ALLOW(sched_setaffinity) ALLOW(sched_getparam)
ALLOW(sched_setparam) ALLOW(sched_getscheduler) ALLOW(sched_setscheduler) ALLOW(sched_getattr)
ALLOW(sched_setattr) ALLOW(sched_get_priority_max) ALLOW(sched_get_priority_min)
ALLOW(sched_rr_get_interval) ALLOW(getpriority) ALLOW(setpriority) ALLOW(ioprio_get)
ALLOW(ioprio_set) ALLOW(getcpu) ALLOW(getrlimit) ALLOW(setrlimit) ALLOW(prlimit64)
ALLOW(getrusage) ALLOW(times) ALLOW(sysinfo) ALLOW(uname) ALLOW(getrandom)

/* Time. Setting it is left out: clock_adjtime and adjtimex only read without a capability. */
ALLOW(time) ALLOW(gettimeofday) ALLOW(clock_gettime) ALLOW(clock_getres) ALLOW(clock_nanosleep)
ALLOW(nanosleep) ALLOW(alarm) ALLOW(getitimer) ALLOW(setitimer) ALLOW(timer_create)
ALLOW(timer_settime) ALLOW(timer_gettime) ALLOW(timer_getoverrun) ALLOW(timer_delete)
ALLOW(adjtimex) ALLOW(clock_adjtime)

/* Sockets: UNIX, TCP, UDP, and of netlink only routing tables to read, which getaddrinfo and if_nameindex use.
 * Rare families, types and protocols are rare in testing too, and asking for one makes the host load its module:
 * type 6 of IPv4 is DCCP without a word about the protocol. */
WHEN(socket, common_socket, EAFNOSUPPORT)
WHEN(socketpair, unix_family, EAFNOSUPPORT)
ALLOW(bind) ALLOW(connect) ALLOW(listen) ALLOW(accept) ALLOW(accept4) ALLOW(getsockname)
ALLOW(getpeername) ALLOW(sendto) ALLOW(recvfrom) ALLOW(sendmsg) ALLOW(recvmsg) ALLOW(sendmmsg)
ALLOW(recvmmsg) ALLOW(setsockopt) ALLOW(getsockopt) ALLOW(shutdown)

/* System V and POSIX IPC, in the sandbox's own namespace. */
ALLOW(shmget) ALLOW(shmat) ALLOW(shmctl) ALLOW(shmdt) ALLOW(semget) ALLOW(semop) ALLOW(semctl)
ALLOW(semtimedop) ALLOW(msgget) ALLOW(msgsnd) ALLOW(msgrcv) ALLOW(msgctl) ALLOW(mq_open)
ALLOW(mq_unlink) ALLOW(mq_timedsend) ALLOW(mq_timedreceive) ALLOW(mq_notify) ALLOW(mq_getsetattr)

/* Making oneself smaller: sandboxes inside the sandbox. */
ALLOW(seccomp) ALLOW(landlock_create_ruleset) ALLOW(landlock_add_rule)
ALLOW(landlock_restrict_self)

/* Refused: how many of these there may be is one number for the whole host (fs.aio-max-nr). */
DENY(io_setup, ENOSYS)

/* Refused: while anyone holds secret memory, the host cannot hibernate. */
DENY(memfd_secret, ENOSYS)

/* Refused: asynchronous rings run requests past this filter. ENOSYS: libuv and Go fall back. */
DENY(io_uring_setup, ENOSYS) DENY(io_uring_enter, ENOSYS) DENY(io_uring_register, ENOSYS)

/* Refused: namespaces and mounts, old interface and new. */
DENY(unshare, EPERM) ZYGOTE(setns, EPERM) DENY(mount, EPERM) DENY(umount2, EPERM)
DENY(pivot_root, EPERM) DENY(chroot, EPERM) DENY(open_tree, EPERM) DENY(move_mount, EPERM)
DENY(fsopen, EPERM) DENY(fsconfig, EPERM) DENY(fsmount, EPERM) DENY(fspick, EPERM)
DENY(mount_setattr, EPERM) DENY(statmount, EPERM) DENY(listmount, EPERM)
DENY(open_tree_attr, EPERM)

/* Refused: looking into and steering other processes. Lambda refuses ptrace too. */
DENY(ptrace, EPERM) DENY(process_vm_readv, EPERM) DENY(process_vm_writev, EPERM)
DENY(process_madvise, EPERM) DENY(process_mrelease, EPERM) DENY(kcmp, EPERM)
DENY(pidfd_getfd, EPERM) DENY(move_pages, EPERM) DENY(migrate_pages, EPERM)

/* Refused: programs and modules in the kernel, and its insides. */
DENY(bpf, EPERM) DENY(perf_event_open, EPERM) DENY(init_module, EPERM)
DENY(finit_module, EPERM) DENY(delete_module, EPERM) DENY(kexec_load, EPERM)
DENY(kexec_file_load, EPERM) DENY(syslog, EPERM) DENY(lookup_dcookie, EPERM)
DENY(lsm_set_self_attr, EPERM)

/* Refused: page faults handled in user space stop the kernel at a chosen instruction. */
DENY(userfaultfd, EPERM)

/* Refused: keyrings are not in any namespace. */
DENY(keyctl, EPERM) DENY(add_key, EPERM) DENY(request_key, EPERM)

/* Refused: files by handle, past the mount namespace; watching whole mounts. */
DENY(open_by_handle_at, EPERM) DENY(name_to_handle_at, EPERM) DENY(fanotify_init, EPERM)
DENY(fanotify_mark, EPERM)

/* Refused: the machine. */
DENY(reboot, EPERM) DENY(swapon, EPERM) DENY(swapoff, EPERM) DENY(sethostname, EPERM)
DENY(setdomainname, EPERM) DENY(settimeofday, EPERM) DENY(clock_settime, EPERM)
DENY(acct, EPERM) DENY(quotactl, EPERM) DENY(quotactl_fd, EPERM) DENY(iopl, EPERM)
DENY(ioperm, EPERM) DENY(vhangup, EPERM)
