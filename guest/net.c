/* The VM's one interface: an address of its own and a route through an on-link gateway. */
#include "ussy.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <net/route.h>
#include <sys/ioctl.h>

static void set_flag(int s, const char *device, bool up) {
    struct ifreq r = {0};
    snprintf(r.ifr_name, IFNAMSIZ, "%s", device);
    if (ioctl(s, SIOCGIFFLAGS, &r))
        return;
    r.ifr_flags = up ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP;
    ioctl(s, SIOCSIFFLAGS, &r);
}

void net_up(const char *device) {
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    set_flag(s, device, true);
    close(s);
}

static bool set_mac(int s, const char *device, const char *mac) {
    struct ifreq r = {.ifr_hwaddr.sa_family = 1 /* ARPHRD_ETHER */};
    unsigned char *b = (void *)r.ifr_hwaddr.sa_data;
    snprintf(r.ifr_name, IFNAMSIZ, "%s", device);
    struct ifreq has = r;
    if (sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", b, b + 1, b + 2, b + 3, b + 4, b + 5) != 6)
        return false;
    if (!ioctl(s, SIOCGIFHWADDR, &has) && !memcmp(has.ifr_hwaddr.sa_data, b, 6))
        return true; /* a machine that booted has it, and one that is told again keeps its connections */
    set_flag(s, device, false);
    return !ioctl(s, SIOCSIFHWADDR, &r);
}

static bool set_address(int s, const char *device, in_addr_t address) {
    struct ifreq r = {0};
    struct sockaddr_in *in = (void *)&r.ifr_addr;
    snprintf(r.ifr_name, IFNAMSIZ, "%s", device);
    *in = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = address};
    if (ioctl(s, SIOCSIFADDR, &r))
        return false;
    in->sin_addr.s_addr = INADDR_NONE; /* a mask of 32 bits */
    return !ioctl(s, SIOCSIFNETMASK, &r);
}

static bool add_route(int s, const char *device, in_addr_t to, in_addr_t mask, in_addr_t via) {
    struct rtentry r = {.rt_flags = RTF_UP | (via ? RTF_GATEWAY : RTF_HOST), .rt_dev = (char *)device};
    *(struct sockaddr_in *)&r.rt_dst = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = to};
    *(struct sockaddr_in *)&r.rt_genmask = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = mask};
    *(struct sockaddr_in *)&r.rt_gateway = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = via};
    return !ioctl(s, SIOCADDRT, &r) || errno == EEXIST;
}

static void write_setting(const char *device, const char *name, const char *value) {
    char path[128];
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/%s", device, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, value, strlen(value)) < 0)
        kernel_log("%s: %s", path, strerror(errno));
    close(fd);
}

bool net_configure6(const char *device, const char *address, const char *gateway) {
    struct {
        struct in6_addr address;
        uint32_t prefix;
        int index;
    } own = {.prefix = 128, .index = (int)if_nametoindex(device)};
    struct in6_rtmsg route = {.rtmsg_flags = RTF_UP | RTF_GATEWAY, .rtmsg_metric = 1024};
    if (inet_pton(AF_INET6, address, &own.address) != 1 || inet_pton(AF_INET6, gateway, &route.rtmsg_gateway) != 1)
        return false;
    int s = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s < 0)
        return true; /* an image may do without IPv6 */
    /* nobody else can have the address, and nobody else's router is on this link */
    write_setting(device, "accept_dad", "0");
    write_setting(device, "accept_ra", "0");
    write_setting(device, "disable_ipv6", "0");
    route.rtmsg_ifindex = own.index;
    if ((ioctl(s, SIOCSIFADDR, &own) && errno != EEXIST) || (ioctl(s, SIOCADDRT, &route) && errno != EEXIST))
        kernel_log("no IPv6: %s", strerror(errno));
    close(s);
    return true;
}

bool net_configure(const char *device, const char *mac, const char *address, const char *gateway) {
    struct in_addr own, via;
    if (!inet_aton(address, &own) || !inet_aton(gateway, &via))
        return false;
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    set_flag(s, "lo", true);
    bool good = (!*mac || set_mac(s, device, mac)) && set_address(s, device, own.s_addr);
    set_flag(s, device, true);
    good = good && add_route(s, device, via.s_addr, INADDR_NONE, 0) && add_route(s, device, 0, 0, via.s_addr);
    int error = errno;
    close(s);
    errno = error;
    return good;
}
