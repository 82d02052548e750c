#define _GNU_SOURCE
#include "networks.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "registry.h"

#define RETRY_MS 5000
#define OWN "/proc/thread-self/ns/net"
/* Root inside has no capability over the namespace, so the kernel would not let it listen on port 80. */
#define FIRST_FREE_PORT "/proc/sys/net/ipv4/ip_unprivileged_port_start"

static int bring_loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), code = 0;

	if (fd < 0)
		return -errno;
	/* One that was made ahead has it up, and is not the sandbox's to change. */
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0 || !(request.ifr_flags & IFF_UP)) {
		request.ifr_flags = IFF_UP | IFF_RUNNING;
		if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
			code = -errno;
	}
	close(fd);
	return code;
}

static bool free_ports(void)
{
	int fd = open(FIRST_FREE_PORT, O_WRONLY | O_CLOEXEC);
	bool good;

	if (fd < 0)
		return false;
	good = write(fd, "0", 1) == 1;
	close(fd);
	return good;
}

int networks_prepare(void)
{
	int code = bring_loopback_up();

	/* Where this is refused, root inside may still listen on all of them: the namespace is then the sandbox's own. */
	free_ports();
	return code;
}

void networks_init(struct networks *networks)
{
	*networks = (struct networks){.home = -1};
	if (unshare(CLONE_NEWNET) < 0)
		return;
	networks->home = open(OWN, O_RDONLY | O_CLOEXEC);
}

bool networks_wanted(const struct networks *networks)
{
	return networks->home >= 0 && networks->count < NETWORKS_AHEAD && registry_now() >= networks->not_before;
}

void networks_refill(struct networks *networks)
{
	int fd = -1;

	if (!networks_wanted(networks))
		return;
	if (!unshare(CLONE_NEWNET)) {
		if (!bring_loopback_up() && free_ports())
			fd = open(OWN, O_RDONLY | O_CLOEXEC);
		networks_leave(networks);
	}
	if (fd < 0)
		networks->not_before = registry_now() + RETRY_MS;
	else
		networks->ahead[networks->count++] = fd;
}

bool networks_enter(struct networks *networks)
{
	int fd;

	if (!networks->count)
		return false;
	fd = networks->ahead[--networks->count];
	if (setns(fd, CLONE_NEWNET) < 0) {
		close(fd);
		return false;
	}
	close(fd);
	return true;
}

void networks_leave(const struct networks *networks)
{
	/* Staying away is no danger: whoever is cloned without `networks_enter` gets a namespace of its own. */
	if (setns(networks->home, CLONE_NEWNET) < 0)
		return;
}
