/* A disk that fails, for one process: loaded by LD_PRELOAD, it counts the system calls on files
 * below FAULTY_ROOT, fails or cuts short the one that is asked for, or ends the process there, and
 * keeps a record of all.
 *
 * The calls are not taken from libc's functions, for some libraries make theirs without it: a
 * seccomp filter traps them wherever they are made, and the handler of the signal carries them out.
 *
 *   FAULTY_ROOT    folder whose files count, an absolute path
 *   FAULTY_KINDS   kinds of calls that are counted: c makes, renames or sizes, u removes, w writes,
 *                  s syncs, r reads, o opens, lists or maps, t asks for sizes and times
 *   FAULTY_NTH     the counted call that fails, from 1; none by default
 *   FAULTY_ACTION  a number of errno; "short": half the bytes; "kill": half the bytes, then SIGKILL
 *   FAULTY_STAYS   if set, every later counted call fails too
 *   FAULTY_RECORD  file that a line for each call goes to: kind, whether it was made to fail, call,
 *                  offset, length, path, second path, all parted by tabs
 *   The bytes written follow the line of a write.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

/* The one place from which calls pass the filter. */
long faulty_call(long number, long a, long b, long c, long d, long e, long f);
extern const char faulty_call_end[];

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
__asm__(".text\n.hidden faulty_call\n.global faulty_call\n.hidden faulty_call_end\n"
        ".global faulty_call_end\nfaulty_call:\n"
        "mov %rdi, %rax\nmov %rsi, %rdi\nmov %rdx, %rsi\nmov %rcx, %rdx\n"
        "mov %r8, %r10\nmov %r9, %r8\nmov 8(%rsp), %r9\nsyscall\n"
        "faulty_call_end:\nret\n");
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
__asm__(".text\n.hidden faulty_call\n.global faulty_call\n.hidden faulty_call_end\n"
        ".global faulty_call_end\nfaulty_call:\n"
        "mov x8, x0\nmov x0, x1\nmov x1, x2\nmov x2, x3\nmov x3, x4\nmov x4, x5\nmov x5, x6\n"
        "svc #0\nfaulty_call_end:\nret\n");
#else
#error "written for x86_64 and aarch64"
#endif

static const char *root, *kinds, *action;
static size_t root_bytes;
static long nth;
static int stays, record = -1, error_number;
static long counted;
static atomic_flag busy = ATOMIC_FLAG_INIT;

/* A trapped call: its arguments, and what it means. */
struct call {
    long number, argument[6];
    char kind;
    const char *name;
    char path[PATH_MAX], other[PATH_MAX];
    long offset;
};

static long call1(long n, long a, long b, long c, long d) { return faulty_call(n, a, b, c, d, 0, 0); }

static long carry_out(const struct call *call) {
    const long *a = call->argument;
    return faulty_call(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static size_t put_number(char *to, unsigned long value) {
    char digits[24];
    size_t count = 0, length;
    do digits[count++] = '0' + value % 10; while (value /= 10);
    for (length = 0; count > 0;) to[length++] = digits[--count];
    to[length] = 0;
    return length;
}

/* The path of an open file, as it is called now. */
static int path_of_file(long fd, char *path) {
    char link[64] = "/proc/self/fd/";
    if (fd < 0) strcpy(link, "/proc/self/cwd");
    else put_number(link + strlen(link), fd);
    long length = call1(SYS_readlinkat, AT_FDCWD, (long)link, (long)path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    return length > 0 && path[0] == '/';
}

/* The path that `name` is, seen from the open folder `fd`; an empty name is the file itself. */
static int path_of_name(long fd, const char *name, char *path) {
    if (name == NULL || name[0] == 0) return path_of_file((int)fd, path);
    path[0] = 0;
    if (name[0] != '/') {
        if (!path_of_file((int)fd == AT_FDCWD ? -1 : (int)fd, path)) return 0;
        strcat(path, "/");
    }
    if (strlen(path) + strlen(name) >= PATH_MAX) return 0;
    strcat(path, name);
    return 1;
}

static int counts(const char *path) {
    return strncmp(path, root, root_bytes) == 0 && (path[root_bytes] == '/' || path[root_bytes] == 0);
}

static int named(struct call *call, char kind, const char *name, long fd, long path) {
    call->kind = kind;
    call->name = name;
    return path_of_name(fd, (const char *)path, call->path);
}

static int opened(struct call *call, char kind, const char *name, long fd) {
    call->kind = kind;
    call->name = name;
    return path_of_file((int)fd, call->path);
}

/* An opening changes the disk where it makes a file or empties one. */
static int opening(struct call *call, long fd, long path, long flags) {
    if (!named(call, 'o', "open", fd, path)) return 0;
    int there = call1(SYS_faccessat, AT_FDCWD, (long)call->path, F_OK, 0) == 0;
    if ((flags & O_CREAT) && !there) call->kind = 'c', call->name = "create";
    else if ((flags & O_TRUNC) && there) call->kind = 'c', call->name = "empty";
    return 1;
}

static int moving(struct call *call, const char *name, long fd, long path, long to_fd, long to) {
    return named(call, 'c', name, fd, path) && path_of_name(to_fd, (const char *)to, call->other);
}

/* Fills in what a call means, and tells whether it has to do with a file. */
static int understand(struct call *call) {
    const long *a = call->argument;
    switch (call->number) {
#ifdef SYS_open
    case SYS_open: return opening(call, AT_FDCWD, a[0], a[1]);
    case SYS_creat: return opening(call, AT_FDCWD, a[0], O_CREAT | O_TRUNC);
    case SYS_mkdir: return named(call, 'c', "mkdir", AT_FDCWD, a[0]);
    case SYS_unlink: return named(call, 'u', "unlink", AT_FDCWD, a[0]);
    case SYS_rmdir: return named(call, 'u', "unlink", AT_FDCWD, a[0]);
    case SYS_rename: return moving(call, "rename", AT_FDCWD, a[0], AT_FDCWD, a[1]);
    case SYS_link: return moving(call, "link", AT_FDCWD, a[0], AT_FDCWD, a[1]);
    case SYS_stat: case SYS_lstat: return named(call, 't', "stat", AT_FDCWD, a[0]);
#endif
#ifdef SYS_renameat
    case SYS_renameat:
        return moving(call, "rename", a[0], a[1], a[2], a[3]);
#endif
    case SYS_renameat2:
        return moving(call, a[4] & RENAME_EXCHANGE ? "exchange" : "rename", a[0], a[1], a[2], a[3]);
    case SYS_linkat: return moving(call, "link", a[0], a[1], a[2], a[3]);
    case SYS_openat: return opening(call, a[0], a[1], a[2]);
    case SYS_mkdirat: return named(call, 'c', "mkdir", a[0], a[1]);
    case SYS_unlinkat: return named(call, 'u', "unlink", a[0], a[1]);
    case SYS_ftruncate: call->offset = a[1]; return opened(call, 'c', "truncate", a[0]);
    case SYS_fallocate: return opened(call, 'c', "allocate", a[0]);
    case SYS_write: case SYS_pwrite64: case SYS_writev: case SYS_pwritev:
        return opened(call, 'w', "write", a[0]);
    case SYS_read: case SYS_pread64: case SYS_readv: case SYS_preadv:
        return opened(call, 'r', "read", a[0]);
    case SYS_fsync: case SYS_fdatasync: return opened(call, 's', "sync", a[0]);
    case SYS_getdents64: return opened(call, 'o', "list", a[0]);
    case SYS_mmap: return opened(call, 'o', "map", a[4]);
    case SYS_fstat: return opened(call, 't', "stat", a[0]);
    case SYS_newfstatat: case SYS_statx: return named(call, 't', "stat", a[0], a[1]);
    /* Copies inside the kernel are refused, so that they go by way of reads and writes. */
    case SYS_sendfile: case SYS_splice: return opened(call, 'x', "copy", a[0]);
    case SYS_copy_file_range: return opened(call, 'x', "copy", a[2]);
    default: return 0;
    }
}

/* Halves what a read or a write is about; a call of one byte or of several buffers stays whole. */
static int halve(struct call *call) {
    int plain = call->number == SYS_write || call->number == SYS_pwrite64 ||
                call->number == SYS_read || call->number == SYS_pread64;
    if (plain && call->argument[2] > 1) call->argument[2] /= 2;
    return plain;
}

static void put_record(const struct call *call, int failed, long result) {
    char line[2 * PATH_MAX + 128];
    size_t at = 0;
    const long *a = call->argument;
    long offset = call->offset, length = result > 0 ? result : 0;
    int data = call->kind == 'w' && length > 0;
    if (data && (call->number == SYS_pwrite64 || call->number == SYS_pwritev)) offset = a[3];
    else if (data) offset = call1(SYS_lseek, a[0], 0, SEEK_CUR, 0) - length;
    line[at++] = call->kind;
    line[at++] = '\t';
    line[at++] = failed ? '!' : result < 0 ? '-' : '+';
    line[at++] = '\t';
    at += strlen(strcpy(line + at, call->name));
    line[at++] = '\t';
    at += put_number(line + at, offset);
    line[at++] = '\t';
    at += put_number(line + at, data ? length : 0);
    line[at++] = '\t';
    at += strlen(strcpy(line + at, call->path));
    line[at++] = '\t';
    at += strlen(strcpy(line + at, call->other));
    line[at++] = '\n';
    call1(SYS_write, record, (long)line, at, 0);
    if (!data) return;
    if (call->number == SYS_writev || call->number == SYS_pwritev) {
        const struct iovec *part = (const struct iovec *)a[1];
        for (; length > 0; part++) {
            long bytes = length < (long)part->iov_len ? length : (long)part->iov_len;
            call1(SYS_write, record, (long)part->iov_base, bytes, 0);
            length -= bytes;
        }
    } else {
        call1(SYS_write, record, a[1], length, 0);
    }
}

/* Carries out a call on one of the files, or what is asked for instead of it. */
static long with_fault(struct call *call) {
    int due = 0;
    if (strchr(kinds, call->kind) != NULL) {
        counted += 1;
        due = nth > 0 && (counted == nth || (stays && counted > nth));
    }
    long result;
    if (due && error_number > 0) {
        result = -error_number;
    } else if (due && action[0] == 'k') {
        long written = call->kind == 'w' && halve(call) ? carry_out(call) : 0;
        if (record >= 0) put_record(call, 1, written);
        for (;;) call1(SYS_kill, call1(SYS_getpid, 0, 0, 0, 0), SIGKILL, 0, 0);
    } else {
        if (due) halve(call);
        result = carry_out(call);
    }
    if (record >= 0) put_record(call, due, result);
    return result;
}

static long handle(struct call *call) {
    if (!understand(call) || !counts(call->path)) return carry_out(call);
    if (call->kind == 'x') return -ENOSYS;
    while (atomic_flag_test_and_set(&busy)) call1(SYS_sched_yield, 0, 0, 0, 0);
    long result = with_fault(call);
    atomic_flag_clear(&busy);
    return result;
}

static void on_trap(int signal, siginfo_t *info, void *context) {
    struct call call;
    ucontext_t *state = context;
    (void)signal;
    call.number = info->si_syscall;
    call.offset = 0;
    call.path[0] = call.other[0] = 0;
#if defined(__x86_64__)
    greg_t *r = state->uc_mcontext.gregs;
    const int at[6] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
    for (int i = 0; i < 6; i++) call.argument[i] = r[at[i]];
    r[REG_RAX] = handle(&call);
#else
    for (int i = 0; i < 6; i++) call.argument[i] = state->uc_mcontext.regs[i];
    state->uc_mcontext.regs[0] = handle(&call);
#endif
}

static const int trapped[] = {
#ifdef SYS_open
    SYS_open, SYS_creat, SYS_mkdir, SYS_unlink, SYS_rmdir, SYS_rename, SYS_link, SYS_stat, SYS_lstat,
#endif
#ifdef SYS_renameat
    SYS_renameat,
#endif
    SYS_renameat2, SYS_linkat, SYS_openat, SYS_mkdirat, SYS_unlinkat, SYS_ftruncate, SYS_fallocate,
    SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev, SYS_read, SYS_pread64, SYS_readv, SYS_preadv,
    SYS_fsync, SYS_fdatasync, SYS_getdents64, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_sendfile,
    SYS_splice, SYS_copy_file_range, SYS_mmap,
};
#define TRAPPED (sizeof trapped / sizeof trapped[0])

#define LOAD(field) \
    (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_HIGH(field) \
    (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + 4)
#define EQUALS(value, then, otherwise) \
    (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise)
#define RETURN(value) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, value)

/* Traps the calls of the list, but for those made by `faulty_call` and mappings of no file. */
static int install_filter(void) {
    struct sock_filter filter[TRAPPED + 16];
    uint64_t own = (uint64_t)(uintptr_t)faulty_call_end;
    unsigned short at = 0;
    filter[at++] = LOAD(arch);
    filter[at++] = EQUALS(ARCHITECTURE, 1, 0);
    filter[at++] = RETURN(SECCOMP_RET_ALLOW);
    filter[at++] = LOAD(nr);
    for (size_t i = 0; i < TRAPPED; i++) {
        /* The last is mmap, with a check of its own. */
        unsigned char left = TRAPPED - 1 - i;
        filter[at++] = EQUALS((unsigned)trapped[i], left == 0 ? 1 : left + 4, 0);
    }
    filter[at++] = RETURN(SECCOMP_RET_ALLOW);
    filter[at++] = LOAD(args[4]);
    filter[at++] = EQUALS(0xffffffff, 0, 1);
    filter[at++] = RETURN(SECCOMP_RET_ALLOW);
    filter[at++] = LOAD(instruction_pointer);
    filter[at++] = EQUALS((uint32_t)own, 0, 3);
    filter[at++] = LOAD_HIGH(instruction_pointer);
    filter[at++] = EQUALS((uint32_t)(own >> 32), 0, 1);
    filter[at++] = RETURN(SECCOMP_RET_ALLOW);
    filter[at++] = RETURN(SECCOMP_RET_TRAP);
    struct sock_fprog program = {at, filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value == NULL ? otherwise : value;
}

__attribute__((constructor)) static void start(void) {
    static const char refused[] = "faulty_disk: the system allows no seccomp filter\n";
    root = getenv("FAULTY_ROOT");
    if (root == NULL) return;
    root_bytes = strlen(root);
    kinds = setting("FAULTY_KINDS", "");
    nth = atol(setting("FAULTY_NTH", "0"));
    action = setting("FAULTY_ACTION", "");
    error_number = atoi(action);
    stays = getenv("FAULTY_STAYS") != NULL;
    const char *file = getenv("FAULTY_RECORD");
    if (file != NULL) record = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGSYS, &trap, NULL) != 0 || !install_filter()) {
        if (write(2, refused, sizeof refused - 1) < 0) _exit(98);
        _exit(99);
    }
}
