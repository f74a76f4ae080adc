/* ussy-init: PID 1 of a VM's initrd, then its agent. Wire format: docs/reference/guest-protocol.md */
#ifndef USSY_H
#define USSY_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#ifndef BUILD_ID
#define BUILD_ID "unknown"
#endif
#define KIT "/.ussy/bin" /* shell and tools that the platform adds to images without a shell */
#define NOBODY "75737379636f6465000000000000ffff" /* machine id of a template, which no machine keeps */
enum {
    VERSION = 1,
    STREAM_PORT = 1021,
    MAX_FRAME = 256 << 10,   /* payload of a control frame */
    MAX_HEADER = 64 << 10,   /* header of a stream */
    MAX_DATA = 64 << 10,     /* payload of an exec frame */
    STDIN_WINDOW = 256 << 10, /* stdin the host may send ahead of credit */
    MAX_PAIRS = 4096,
    MAX_STREAMS = 1024,      /* streams at once */
    MAX_STRANGERS = 64,      /* of them not yet authenticated */
    HELLO_SECONDS = 5,       /* time to authenticate */
    CONNECT_MS = 5000,       /* time for a dial to connect */
    SECRET_LEN = 64,
};

/* pairs.c: "key NUL value NUL" sequences, numbers, whole reads and writes */
struct pairs { const char *at, *end; };
bool pairs_check(struct pairs *p, const char *data, size_t len);
bool pairs_next(struct pairs *p, const char **key, const char **value);
const char *pairs_get(const struct pairs *p, const char *key, const char *otherwise);
long pairs_number(const struct pairs *p, const char *key, long otherwise, long most);
struct out { FILE *file; char *data; size_t len; };
bool out_open(struct out *o);
void out_add(struct out *o, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool out_close(struct out *o);
uint32_t get32(const void *at);
void put32(void *at, uint32_t n);
bool read_whole(int fd, void *to, size_t len);
bool write_whole(int fd, const void *from, size_t len);
int64_t now_ms(clockid_t clock);
const char *wire_code(int error);
void kernel_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* agent.c: what the agent knows, and its loop */
struct state {
    bool configured;
    bool on_host;              /* the tests' mode: no effect outside `root`, none on the kernel */
    bool container;            /* clock, randomness, network and disk belong to the host */
    const char *root;          /* prefix of every file that configure writes */
    char secret[SECRET_LEN + 1];
    char login_user[64];
    char *env;                 /* "NAME=VALUE NUL" ... of the platform */
    size_t env_len;
    uid_t uid;                 /* whom the agent runs as */
};
extern struct state state;
void agent_run(int control, int listener, int configured);
void agent_hosts(int listening);
void agent_relays(int from);
int agent_listen(const char *device, const char *address, int port);
int agent_port(void);
void agent_authenticated(void);

/* control.c: frames on the virtio-serial port */
void control_begin(int fd, int configured);
bool control_input(void);

/* identity.c and net.c: the effects of configure */
const char *identity_configure(struct pairs p, char *why, size_t room);
bool identity_keys(struct pairs p);
void identity_be_nobody(void);
bool replace_file(const char *path, mode_t mode, const char *data, size_t len);
bool net_configure(const char *device, const char *mac, const char *address, const char *gateway);
bool net_configure6(const char *device, const char *address, const char *gateway);
void net_up(const char *device);

/* report.c: what the guest says of itself */
void report_stats(struct out *o);
void report_ports(struct out *o);

/* service.c: what an image without an init runs */
bool service_write(struct pairs p, const char *env, size_t env_len, struct out *o);
void service_start(void);

/* settle.c: a template's guest */
bool settle_begin(void);
bool settle_began(void);
void settle_reaped(pid_t pid, int status);
const char *settle_word(void);
bool settle_become(void);

/* init.c */
bool is_tiny_init(void);
void init_main(char **argv) __attribute__((noreturn));
void container_main(char **argv) __attribute__((noreturn));
void sync_disks(void);

/* stream.c: one process per connection, it never returns */
void stream_serve(int conn) __attribute__((noreturn));
void reply_ok(int conn, struct out *fields);
void reply_error(int conn, const char *code, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void reply_errno(int conn, const char *what) __attribute__((noreturn));
void finish_reading(int conn);
void pump(int a, int b) __attribute__((noreturn));
void stream_dial(int conn, struct pairs p) __attribute__((noreturn));
void stream_exec(int conn, struct pairs p) __attribute__((noreturn));
void stream_sftp(int conn, struct pairs p) __attribute__((noreturn));
void stream_put(int conn, struct pairs p) __attribute__((noreturn));
void stream_listen(int conn, struct pairs p) __attribute__((noreturn));
void stream_accept(int conn, struct pairs p) __attribute__((noreturn));

/* user.c */
const struct passwd *user_find(int conn, struct pairs p);
bool user_become(const struct passwd *user);
void user_environment(const struct passwd *user, struct pairs p);
void user_end_tree(const char *cgroup);
#endif
