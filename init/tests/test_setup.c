#define _GNU_SOURCE
#include "setup.h"

#include <linux/magic.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

#include "places.h"

static uint8_t buffer[8192];
static struct err e;

/* Builds a T_OP from what a step may have; a NULL or a negative number is left out. */
static struct msg_reader step(long long opcode, const char *path, const char *source, const char *fstype,
			      const char *value, long long mode)
{
	struct msg_writer writer;

	msg_begin(&writer, buffer, sizeof buffer, M_CREATE, 1);
	if (opcode >= 0)
		msg_put_number(&writer, T_OPCODE, (uint64_t)opcode);
	if (path)
		msg_put_string(&writer, T_PATH, path);
	if (source)
		msg_put_string(&writer, T_SOURCE, source);
	if (fstype)
		msg_put_string(&writer, T_FSTYPE, fstype);
	if (value)
		msg_put_string(&writer, T_VALUE, value);
	if (mode >= 0)
		msg_put_number(&writer, T_MODE, (uint64_t)mode);
	return (struct msg_reader){buffer + 8, buffer + writer.length};
}

static int parse(long long opcode, const char *path, const char *source, const char *fstype, const char *value)
{
	struct setup_op op;

	return setup_parse(step(opcode, path, source, fstype, value, -1), &op, &e);
}

static void test_needs(void)
{
	static const int path_only[] = {OP_MKDIR, OP_MOVE, OP_PIVOT, OP_CHMOD};
	static const int with_source[] = {OP_BIND, OP_MASK, OP_SYMLINK};

	for (size_t i = 0; i < sizeof path_only / sizeof *path_only; i++) {
		ok(!parse(path_only[i], "/p", NULL, NULL, NULL), "step %d needs a path", path_only[i]);
		ok(parse(path_only[i], NULL, "/s", "f", "v") == -EBADMSG, "step %d is refused without", path_only[i]);
	}
	for (size_t i = 0; i < sizeof with_source / sizeof *with_source; i++) {
		ok(!parse(with_source[i], "/p", "/s", NULL, NULL), "step %d needs a source too", with_source[i]);
		ok(parse(with_source[i], "/p", NULL, "f", "v") == -EBADMSG, "step %d is refused without",
		   with_source[i]);
		ok(parse(with_source[i], NULL, "/s", "f", "v") == -EBADMSG, "or without a path");
	}
	is(parse(OP_MOUNT, "/p", "s", "proc", NULL), 0, "a mount needs path, source and type");
	is(parse(OP_MOUNT, "/p", "s", NULL, NULL), -EBADMSG, "not less");
	is(parse(OP_WRITE, "/p", NULL, NULL, "v"), 0, "a write needs path and value");
	is(parse(OP_WRITE, "/p", NULL, NULL, NULL), -EBADMSG, "not less");
	is(parse(OP_HOSTNAME, NULL, NULL, NULL, "h"), 0, "a host name needs a value");
	is(parse(OP_HOSTNAME, "/p", NULL, NULL, NULL), -EBADMSG, "not a path");
	is(parse(OP_LOOPBACK, NULL, NULL, NULL, NULL), 0, "loopback needs nothing");
	is(parse(OP_ENTER, NULL, NULL, NULL, NULL), 0, "nor does a step into a layer");
	is(parse(0, "/p", "/s", "f", "v"), -EBADMSG, "there is no step 0");
	is(parse(OP_CHMOD + 100, "/p", "/s", "f", "v"), -EBADMSG, "nor one with a high number");
	is(parse(-1, "/p", "/s", "f", "v"), -EBADMSG, "nor one without");
}

static void test_malformed(void)
{
	struct setup_op op;
	struct msg_writer writer;
	struct msg_reader whole = step(OP_WRITE, "/p", NULL, NULL, "text", 0644);
	int refused = 0, steps = 0;

	is(setup_parse(whole, &op, &e), 0, "a whole step is taken");
	ok(!strcmp(op.path, "/p") && !strcmp(op.value, "text") && op.mode == 0644 && !op.source, "with what it says");
	for (const uint8_t *end = whole.at; end < whole.end; end++, steps++)
		refused += setup_parse((struct msg_reader){whole.at, end}, &op, &e) == -EBADMSG;
	is(refused, steps - 1, "a torn one is refused, but for the one that only lacks its mode");

	msg_begin(&writer, buffer, sizeof buffer, M_CREATE, 1);
	msg_put_number(&writer, T_OPCODE, OP_LOOPBACK);
	msg_put_number(&writer, T_CREATED, 1);
	is(setup_parse((struct msg_reader){buffer + 8, buffer + writer.length}, &op, &e), -EBADMSG,
	   "unknown fields are refused");
	msg_begin(&writer, buffer, sizeof buffer, M_CREATE, 1);
	msg_put(&writer, T_OPCODE, "\12", 1);
	is(setup_parse((struct msg_reader){buffer + 8, buffer + writer.length}, &op, &e), -EBADMSG,
	   "so are short numbers");
	msg_begin(&writer, buffer, sizeof buffer, M_CREATE, 1);
	msg_put_number(&writer, T_OPCODE, OP_MKDIR);
	msg_put(&writer, T_PATH, "/a\0b", 5);
	is(setup_parse((struct msg_reader){buffer + 8, buffer + writer.length}, &op, &e), -EBADMSG,
	   "and strings with a NUL inside");
}

static int run(long long opcode, const char *path, const char *source, const char *value, long long mode)
{
	struct setup_op op;
	int code = setup_parse(step(opcode, path, source, "tmpfs", value, mode), &op, &e);

	if (!code && opcode == OP_WRITE && mode >= 0)
		op.flags = O_CREAT;
	return code ? code : setup_run(&op, NULL, 0, &e);
}

static mode_t mode_of(const char *path)
{
	struct stat facts;

	return stat(path, &facts) ? 0 : facts.st_mode & 07777;
}

static void test_plain_steps(void)
{
	char link[256] = "";

	is(run(OP_MKDIR, at("d"), NULL, NULL, 0755), 0, "a directory is made");
	is(run(OP_MKDIR, at("d"), NULL, NULL, 0755), 0, "one that is there is fine");
	is(run(OP_MKDIR, at("x/y"), NULL, NULL, 0755), -ENOENT, "one without parent is not");
	is_string(e.stage, "mkdir", "and the error says what was done");
	ok(strstr(e.text, "x/y") != NULL, "and to what");
	is(run(OP_CHMOD, at("d"), NULL, NULL, 01777), 0, "a mode is set");
	is(mode_of(at("d")), 01777, "to the bit");
	is(run(OP_WRITE, at("d/f"), NULL, "text", 0640), 0, "a file is made and written");
	is_string(file_text(at("d/f")), "text", "with its text");
	is(mode_of(at("d/f")), 0640, "and its mode");
	is(run(OP_WRITE, at("d/none"), NULL, "text", -1), -ENOENT, "it is not made unless asked for");
	is(run(OP_SYMLINK, at("d/l"), "target", NULL, -1), 0, "a link is made");
	is(run(OP_SYMLINK, at("d/l"), "target", NULL, -1), 0, "one that is there is fine");
	ok(readlink(at("d/l"), link, sizeof link - 1) == 6 && !strcmp(link, "target"), "it leads to its source");
	is(run(OP_WRITE, at("d/l"), NULL, "text", 0640), -ELOOP, "a file is not written through a link");
	is(run(OP_MOVE, at("d"), NULL, NULL, -1), -EBADMSG, "a layer that was not handed over cannot be attached");
	is(run(OP_PIVOT, at("none"), NULL, NULL, -1), -ENOENT, "a missing directory is no root");
	is(run(OP_ENTER, NULL, NULL, NULL, -1), -EBADMSG, "a layer that was not handed over cannot be entered");
	is(run(OP_MASK, at("none"), "/", NULL, -1), 0, "masking what is missing is fine");
}

/* Steps into a tmpfs by descriptor and checks that relative paths begin there. */
static int enter_tmpfs(void)
{
	struct setup_op op = {.opcode = OP_ENTER, .options = "size=64k,mode=0711"};
	struct statfs filesystem;

	if (chdir(at("stage")) < 0 || setup_run(&op, NULL, 0, &e))
		return 1;
	if (statfs(".", &filesystem) < 0 || filesystem.f_type != TMPFS_MAGIC || filesystem.f_blocks * 4096 > 65536)
		return 2;
	if (mode_of(".") != 0711 || run(OP_MKDIR, "inside", NULL, NULL, 0755) || !is_there(at("stage/inside")))
		return 3;
	op.options = "size";
	if (setup_run(&op, NULL, 0, &e) != -EINVAL)
		return 4;
	op.options = "nonsense=1";
	return setup_run(&op, NULL, 0, &e) == -EINVAL ? 0 : 5;
}

/* In a child with namespaces of its own; returns the number of the check that failed. */
static int mount_steps(void *context)
{
	struct utsname names;
	struct ifreq request = {.ifr_name = "lo"};
	int fd;

	(void)context;
	if (unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWNET) < 0)
		return 77;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 1;
	if (enter_tmpfs())
		return 11;
	if (run(OP_MOUNT, at("root"), "tmpfs", NULL, -1) || run(OP_MKDIR, at("root/bound"), NULL, NULL, 0755))
		return 2;
	if (run(OP_MKDIR, at("root/etc"), NULL, NULL, 0755) ||
	    run(OP_WRITE, at("root/etc/secret"), NULL, "secret", 0644) || run(OP_WRITE, at("empty"), NULL, "", 0644))
		return 3;
	if (run(OP_BIND, at("root/bound"), at("source"), NULL, -1) || !is_there(at("root/bound/inside")))
		return 4;
	if (run(OP_MASK, at("root/etc/secret"), at("empty"), NULL, -1) || strcmp(file_text(at("root/etc/secret")), ""))
		return 5;
	if (run(OP_HOSTNAME, NULL, NULL, "sandbox", -1) || uname(&names) || strcmp(names.nodename, "sandbox"))
		return 6;
	if (run(OP_LOOPBACK, NULL, NULL, NULL, -1))
		return 7;
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0 || !(request.ifr_flags & IFF_UP))
		return 8;
	if (run(OP_PIVOT, at("root"), NULL, NULL, -1))
		return 9;
	return is_there("/bound/inside") && !is_there("/proc") && !is_there(place) ? 0 : 10;
}

static void test_mounts(void)
{
	static const char what[] = "mount, bind, mask, host name, loopback and pivot work in new namespaces";

	if (geteuid()) {
		skip(what, "needs root");
		return;
	}
	directory_make(at("root"), 0755);
	directory_make(at("source"), 0755);
	directory_make(at("stage"), 0755);
	file_make(at("source/inside"), "", 0644);
	is(in_child(mount_steps, NULL), 0, what);
}

int main(void)
{
	place_make();
	test_needs();
	test_malformed();
	test_plain_steps();
	test_mounts();
	place_remove();
	return tap_end();
}
