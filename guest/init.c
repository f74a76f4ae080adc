/* PID 1 of the initrd: drivers, disk, agent, then the image's init - or, in its place, a tiny one. */
#include "ussy.h"
#include <dirent.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { HOSTS_FD = 3 }; /* of a container: the listening socket that its runtime leaves open */
enum { DISK_MS = 5000, PORT_MS = 10000, CONFIGURE_MS = 30000, TERM_MS = 2000, AGAIN_MS = 100 };
static char cmdline[4096];
static int kept_port = -1; /* on which a host said what to boot, and on which the agent speaks then */
static int said[2] = {-1, -1}; /* what a container's init says, on its way to the agent */

/* The value of a word NAME=VALUE of the kernel's command line. */
static const char *argument(const char *name, const char *otherwise) {
    static char line[sizeof cmdline];
    size_t len = strlen(name);
    char *rest = strcpy(line, cmdline);
    for (char *word; (word = strsep(&rest, " \n"));)
        if (!strncmp(word, name, len) && word[len] == '=')
            return word + len + 1;
    return otherwise;
}

static void pause_ms(int ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL); }

static void load_driver(const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/mod/%s.ko", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
        kernel_log("ussy: cannot load %s: %s\n", name, strerror(errno));
    close(fd);
}

/* All but the disk's. */
static void load_drivers(void) {
    static const char *const names[] = {"virtio_ring", "virtio", "virtio_mmio", "failover", "net_failover",
                                        "virtio_net", "virtio_console", "virtio-rng"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        load_driver(names[i]);
}

static void mount_at(const char *type, const char *path, unsigned long flags, const char *options) {
    mkdir(path, 0755);
    if (mount(type, path, type, flags, options))
        kernel_log("ussy: cannot mount %s: %s\n", path, strerror(errno));
}

static void enter_disk(void) {
    for (int waited = 0; access("/dev/vda", F_OK) && waited < DISK_MS; waited++)
        pause_ms(1);
    const char *type = argument("ussy.fstype", "ext4"); /* with discard, what is deleted is given back to the host */
    if (mount("/dev/vda", "/root", type, MS_NOATIME, "discard") && mount("/dev/vda", "/root", type, MS_NOATIME, "")) {
        kernel_log("ussy: cannot mount the disk: %s\n", strerror(errno));
        reboot(RB_POWER_OFF);
    }
    static const char *const moved[] = {"/dev", "/proc", "/sys"};
    for (int i = 0; i < 3; i++) {
        char to[16];
        snprintf(to, sizeof to, "/root%s", moved[i]);
        mkdir(to, 0755);
        mount(moved[i], to, NULL, MS_MOVE, NULL);
    }
    if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        kernel_log("ussy: cannot enter the disk: %s\n", strerror(errno));
}

static void mount_the_rest(void) {
    mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666,gid=5");
    mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
    mount_at("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755");
    mount_at("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
    symlink("/proc/self/fd", "/dev/fd");
    symlink("/proc/self/fd/0", "/dev/stdin");
    symlink("/proc/self/fd/1", "/dev/stdout");
    symlink("/proc/self/fd/2", "/dev/stderr");
}

static void write_text(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    write_whole(fd, text, strlen(text));
    close(fd);
}

/* The virtio-serial port of our name, or -1. */
static int try_port(void) {
    int fd = -1;
    DIR *ports = opendir("/sys/class/virtio-ports");
    for (struct dirent *e; ports && fd < 0 && (e = readdir(ports));) {
        char path[300], name[16] = "";
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%.200s/name", e->d_name);
        int named = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = read(named, name, sizeof name - 1);
        close(named);
        snprintf(path, sizeof path, "/dev/%.200s", e->d_name);
        if (n > 0 && !strcmp(name, "ussy\n"))
            fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    if (ports)
        closedir(ports);
    return fd;
}

/* A template's kernel has everything but a disk. Wait for a host that says with which init this machine goes on. A write
   to the port waits until somebody is connected; who came since, and was not seen to come, is told again after a while. */
static const char *wait_for_host(void) {
    static const char waits[] = "ussy waits\n", go[] = "ussy go ", goes[] = "ussy goes\n";
    static char line[160];
    for (;; pause_ms(1)) {
        size_t n = 0;
        if (kept_port < 0 && (kept_port = try_port()) >= 0)
            fcntl(kept_port, F_SETFL, 0);
        if (kept_port >= 0 && write_whole(kept_port, waits, sizeof waits - 1))
            while (n < sizeof line - 1 && poll(&(struct pollfd){kept_port, POLLIN, 0}, 1, AGAIN_MS) == 1 &&
                   read(kept_port, line + n, 1) == 1 && line[n] != '\n')
                n++;
        line[n] = 0;
        if (!strncmp(line, go, sizeof go - 1) && write_whole(kept_port, goes, sizeof goes - 1))
            return line + sizeof go - 1;
    }
}

/* Out of the container's topmost group, which the image's systemd wants for itself where it hands out controllers. */
static void make_room_for_init(void) {
    mkdir("/sys/fs/cgroup/ussycode", 0755);
    write_text("/sys/fs/cgroup/ussycode/cgroup.procs", "0");
}

static void serve_host_of_container(int configured) {
    make_room_for_init();
    fcntl(HOSTS_FD, F_SETFL, O_NONBLOCK);
    agent_hosts(HOSTS_FD);
    close(said[1]);
    agent_relays(said[0]);
    prctl(PR_SET_DUMPABLE, 0); /* root of the container may not take over the descriptors that lead to the host */
    agent_run(-1, -1, configured);
}

static void be_agent(char **argv, int configured) {
    int port;
    setsid();
    strcpy(argv[0], "@ussy"); /* "/init" had as much room; with an @, systemd's last round of kills spares it */
    prctl(PR_SET_NAME, "ussy-agent");
    write_text("/proc/self/oom_score_adj", "-900");
    if (state.container)
        serve_host_of_container(configured);
    port = kept_port;
    for (int waited = 0; port < 0 && (port = try_port()) < 0 && waited < PORT_MS; waited++)
        pause_ms(1);
    if (port < 0)
        kernel_log("ussy: no control port\n");
    /* SIGIO wakes the loop when a host connects */
    signal(SIGIO, SIG_IGN);
    fcntl(port, F_SETOWN, getpid());
    fcntl(port, F_SETFL, O_NONBLOCK | O_ASYNC);
    agent_run(port, -1, configured);
    kernel_log("ussy: the agent ended\n");
    _exit(1);
}

static void start_agent(char **argv) {
    int told[2];
    char byte;
    if (pipe2(told, O_CLOEXEC))
        return;
    if (!fork()) {
        close(told[0]);
        be_agent(argv, told[1]);
    }
    close(told[1]);
    close(kept_port);
    if (poll(&(struct pollfd){told[0], POLLIN, 0}, 1, CONFIGURE_MS) < 1 || read(told[0], &byte, 1) < 1)
        kernel_log("ussy: going on without an identity\n");
    close(told[0]);
}

bool is_tiny_init(void) {
    struct stat one, own;
    return !stat("/proc/1/exe", &one) && !stat("/proc/self/exe", &own) && one.st_dev == own.st_dev &&
           one.st_ino == own.st_ino;
}

/* A container's sync would write everybody's disks. */
void sync_disks(void) {
    int root = state.container ? open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (root < 0)
        sync();
    else
        syncfs(root);
    close(root);
}

static void power_off(void) {
    kill(-1, SIGTERM);
    for (int64_t until = now_ms(CLOCK_MONOTONIC) + TERM_MS; now_ms(CLOCK_MONOTONIC) < until;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid < 0)
            break;
        if (pid == 0)
            pause_ms(10);
    }
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    sync_disks();
    if (!state.container)
        mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
    sync_disks();
    reboot(RB_POWER_OFF);
}

static void be_tiny_init(void) {
    static const int signals[] = {SIGCHLD, SIGHUP, SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGPWR};
    sigset_t watched;
    sigemptyset(&watched);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaddset(&watched, signals[i]);
    sigprocmask(SIG_BLOCK, &watched, NULL);
    if (!state.container)
        net_up("lo");
    if (!state.container)
        mount_at("cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
    for (int sig = SIGHUP; sig == SIGCHLD || sig == SIGHUP; sig = sigwaitinfo(&watched, NULL)) {
        if (sig == SIGHUP) /* the agent has said what to run */
            service_start();
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
    power_off();
}

static void __attribute__((noreturn)) become(const char *init) {
    if (strcmp(init, "tiny")) {
        execl(init, init, NULL);
        kernel_log("ussy: cannot run %s: %s\n", init, strerror(errno));
    }
    be_tiny_init();
    _exit(1);
}

void init_main(char **argv) {
    mount_at("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
    mount_at("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
    mount_at("devtmpfs", "/dev", MS_NOSUID, "mode=755");
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    if (read(fd, cmdline, sizeof cmdline - 1) < 0)
        kernel_log("ussy: no command line\n");
    close(fd);
    load_drivers();
    const char *init = *argument("ussy.wait", "") ? wait_for_host() : NULL;
    load_driver("virtio_blk");
    enter_disk();
    mount_the_rest();
    start_agent(argv);
    become(init ? init : argument("ussy.init", "/sbin/init"));
}

/* The descriptors that lead to the host's log and control stay with the agent alone. */
static void let_go_of_host(void) {
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < HOSTS_FD; fd++)
        dup2(fd && said[1] >= 0 ? said[1] : null, fd);
    close(null), close(said[0]), close(said[1]);
    close(HOSTS_FD);
}

/* PID 1 of a container: its runtime made the mounts, the interface and the host's name. */
void container_main(char **argv) {
    state.container = true;
    fcntl(HOSTS_FD, F_SETFD, FD_CLOEXEC);
    if (pipe2(said, O_CLOEXEC) || fcntl(said[0], F_SETFL, O_NONBLOCK))
        kernel_log("ussy: what init says is lost: %s\n", strerror(errno));
    start_agent(argv);
    let_go_of_host();
    become(argv[2]);
}
