/* stats and ports: what the guest says of itself. */
#include "ussy.h"
#include <arpa/inet.h>
#include <sys/statvfs.h>

static FILE *open_proc(const char *path) { return fopen(path, "re"); }

static void report_memory(struct out *o) {
    unsigned long long total = 0, available = 0;
    char line[128];
    FILE *f = open_proc("/proc/meminfo");
    while (f && fgets(line, sizeof line, f)) {
        sscanf(line, "MemTotal: %llu", &total);
        sscanf(line, "MemAvailable: %llu", &available);
    }
    if (f)
        fclose(f);
    out_add(o, "memory_total", "%llu", total * 1024);
    out_add(o, "memory_available", "%llu", available * 1024);
}

void report_stats(struct out *o) {
    char one[16] = "0", five[16] = "0", fifteen[16] = "0";
    struct statvfs fs = {0};
    FILE *f = open_proc("/proc/loadavg");
    if (f && fscanf(f, "%15s %15s %15s", one, five, fifteen) < 3)
        kernel_log("ussy: an odd /proc/loadavg\n");
    if (f)
        fclose(f);
    statvfs("/", &fs);
    report_memory(o);
    out_add(o, "load", "%s %s %s", one, five, fifteen);
    out_add(o, "disk_total", "%llu", (unsigned long long)fs.f_blocks * fs.f_frsize);
    out_add(o, "disk_free", "%llu", (unsigned long long)fs.f_bavail * fs.f_frsize);
    out_add(o, "uptime_ms", "%lld", (long long)now_ms(CLOCK_BOOTTIME));
}

static void report_table(struct out *o, const char *path, int family, int *room) {
    enum { LISTENING = 0x0a };
    char line[256], hex[40], text[INET6_ADDRSTRLEN];
    FILE *f = open_proc(path);
    while (f && *room > 0 && fgets(line, sizeof line, f)) {
        unsigned port, what;
        uint32_t address[4] = {0};
        if (sscanf(line, " %*u: %39[0-9A-F]:%x %*[0-9A-F]:%*x %x", hex, &port, &what) != 3 || what != LISTENING)
            continue;
        for (size_t i = 0; i < 4 && strlen(hex) >= 8 * (i + 1); i++)
            sscanf(hex + 8 * i, "%8x", &address[i]);
        if (port == STREAM_PORT || !inet_ntop(family, address, text, sizeof text))
            continue;
        out_add(o, "port", "%u %s", port, text);
        --*room;
    }
    if (f)
        fclose(f);
}

void report_ports(struct out *o) {
    int room = 1000;
    report_table(o, "/proc/net/tcp", AF_INET, &room);
    report_table(o, "/proc/net/tcp6", AF_INET6, &room);
}
