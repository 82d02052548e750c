#define _GNU_SOURCE
#include "connects.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tap.h"

static struct err e;

static uint16_t listen_on_port(int *server)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof address;

	*server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	need(*server >= 0 && !bind(*server, (struct sockaddr *)&address, length) && !listen(*server, 1) &&
		     !getsockname(*server, (struct sockaddr *)&address, &length),
	     "listen");
	return ntohs(address.sin_port);
}

static void test_ports(void)
{
	int server, fd;
	uint16_t port = listen_on_port(&server);

	fd = connects_open(port, 4, NULL, &e);
	if (ok(fd >= 0, "a port is reached")) {
		ok(fcntl(fd, F_GETFL) & O_NONBLOCK, "by a socket that does not block");
		ok(fcntl(fd, F_GETFD) & FD_CLOEXEC, "and is no command's");
		is(accept(server, NULL, NULL) >= 0, 1, "and is connected");
		close(fd);
	}
	close(server);
	fd = connects_open(port, 4, NULL, &e);
	ok(fd == -ECONNREFUSED || fd >= 0, "one where nobody listens says so, at once or later");
	is(connects_open(0, 4, NULL, &e), -EINVAL, "0 is no port");
	is(connects_open(65536, 6, NULL, &e), -EINVAL, "65536 neither");
	is(connects_open(80, 5, NULL, &e), -EINVAL, "there is no version 5");
}

static void test_names(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd, last = 0;
	char name[110], taken[64];

	snprintf(taken, sizeof taken, "traforo-test-%d", getpid());
	memcpy(address.sun_path + 1, taken, strlen(taken));
	need(server >= 0 &&
		     !bind(server, (struct sockaddr *)&address,
			   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(taken))) &&
		     !listen(server, 0),
	     "listen");
	fd = connects_open(0, 0, taken, &e);
	ok(fd >= 0, "an abstract name is reached");
	for (int tries = 0; tries < 8 && last >= 0; tries++)
		last = connects_open(0, 0, taken, &e);
	is(last, -EAGAIN, "nobody waits where the queue is full");
	taken[4] = '!';
	is(connects_open(0, 0, taken, &e), -ECONNREFUSED, "another name is another one");
	memset(name, 'x', sizeof name);
	name[107] = 0;
	is(connects_open(0, 0, name, &e), -ECONNREFUSED, "a name may be so long");
	name[107] = 'x';
	name[108] = 0;
	is(connects_open(0, 0, name, &e), -EINVAL, "and no longer");
	is(connects_open(0, 0, "", &e), -EINVAL, "nor empty");
}

int main(void)
{
	test_ports();
	test_names();
	return tap_end();
}
