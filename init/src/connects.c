#define _GNU_SOURCE
#include "connects.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

union address {
	struct sockaddr any;
	struct sockaddr_in four;
	struct sockaddr_in6 six;
	struct sockaddr_un local;
};

/* Returns the length, 0 for what is no address. */
static socklen_t address_of(uint64_t port, uint64_t version, const char *name, union address *address)
{
	memset(address, 0, sizeof *address);
	if (name) {
		size_t length = strlen(name);

		if (!length || length >= sizeof address->local.sun_path)
			return 0;
		address->local.sun_family = AF_UNIX;
		memcpy(address->local.sun_path + 1, name, length);
		return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
	}
	if (port < 1 || port > 65535)
		return 0;
	if (version == 4) {
		address->four.sin_family = AF_INET;
		address->four.sin_port = htons((uint16_t)port);
		address->four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof address->four;
	}
	address->six.sin6_family = AF_INET6;
	address->six.sin6_port = htons((uint16_t)port);
	address->six.sin6_addr = (struct in6_addr)IN6ADDR_LOOPBACK_INIT;
	return version == 6 ? sizeof address->six : 0;
}

int connects_open(uint64_t port, uint64_t version, const char *name, struct err *e)
{
	union address address;
	socklen_t length = address_of(port, version, name, &address);
	int fd, code;

	if (!length)
		return err_set(e, EINVAL, "connect", "neither a port nor a name");
	fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(e, errno, "connect", "cannot make a socket");
	if (!connect(fd, &address.any, length) || errno == EINPROGRESS)
		return fd;
	code = errno;
	close(fd);
	return err_set(e, code, "connect", "cannot connect");
}
