#define _GNU_SOURCE
#include "networks.h"

#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "places.h"

static struct networks networks;

static ino_t here(void)
{
	struct stat found;

	need(!stat("/proc/thread-self/ns/net", &found), "stat");
	return found.st_ino;
}

static bool is_up(void)
{
	struct ifreq request = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	bool up = !ioctl(fd, SIOCGIFFLAGS, &request) && request.ifr_flags & IFF_UP;

	close(fd);
	return up;
}

static bool may_listen(uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	bool bound = !bind(fd, (struct sockaddr *)&address, sizeof address);

	close(fd);
	return bound;
}

static void test_ahead(void)
{
	ino_t home = here(), first, second;

	ok(!networks_enter(&networks), "none is there before one was made");
	for (int i = 0; i < NETWORKS_AHEAD + 3; i++)
		networks_refill(&networks);
	is((long long)networks.count, NETWORKS_AHEAD, "no more are made than fit");
	ok(!networks_wanted(&networks), "and no more are wanted");
	ok(here() == home, "making them leaves this process at home");
	ok(networks_enter(&networks), "one is entered");
	first = here();
	ok(first != home, "which is another one");
	ok(is_up(), "with its loopback interface up");
	ok(may_listen(80), "and free ports");
	ok(networks_wanted(&networks), "another one is wanted now");
	networks_leave(&networks);
	ok(here() == home, "and left");
	ok(networks_enter(&networks), "the next one");
	second = here();
	ok(second != first && second != home, "is another one again");
	networks_leave(&networks);
}

static void test_own(void)
{
	need(!unshare(CLONE_NEWNET), "unshare");
	ok(!is_up(), "a new namespace is down");
	is(networks_prepare(), 0, "it is prepared");
	ok(is_up(), "and then up");
	is(networks_prepare(), 0, "twice is fine");
}

int main(void)
{
	networks_init(&networks);
	if (networks.home < 0) {
		skip("network namespaces made ahead", "this user may make none");
		return tap_end();
	}
	test_ahead();
	test_own();
	return tap_end();
}
