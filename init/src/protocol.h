/* The init protocol: what the worker, the spawner and the inits say to each other.
 *
 * A message is one datagram of a SOCK_SEQPACKET socket, at most MSG_MAX bytes, integers little endian:
 *
 *     u16 type, u16 zero, u32 request id       (8 bytes; a reply repeats the request's id, events have 0)
 *     then fields: u16 tag, u16 zero, u32 length, bytes
 *
 * A string field ends with its NUL and has no other; a number is 8 bytes; a nested field holds fields. Descriptors
 * travel beside the message by SCM_RIGHTS, in the order that the message names. `traforo.wire.init_messages` is the
 * other end and a test compares its numbers with these.
 */
#ifndef TRAFORO_PROTOCOL_H
#define TRAFORO_PROTOCOL_H

#define PROTOCOL_VERSION 4
#define MSG_MAX (160 * 1024)
#define MSG_FDS_MAX 16
#define LABEL_MAX (32 * 1024)

enum message_type {
	/* worker to spawner */
	M_HELLO = 1,    /* -> OK version pid */
	M_CREATE = 2,   /* id label deadline clone_flags uid_map gid_map owner caps cgroup* layer* op* -> OK pid [control] */
	M_LIST = 3,     /* cursor -> OK entry* more cursor */
	M_ATTACH = 4,   /* id -> OK [control] */
	M_UPDATE = 5,   /* id label deadline -> OK */
	M_KILL = 6,     /* id reason -> OK; M_SANDBOX_EXITED follows */
	M_FORGET = 7,   /* id -> OK */
	M_ADOPT = 8,    /* id label deadline pid cgroup* [control pidfd] -> OK */
	M_SHUTDOWN = 9, /* -> OK, then the spawner ends; refused while a sandbox lives */
	/* worker to init */
	M_EXEC = 16,         /* number label arg* env* cwd user stdin (rows columns)? -> OK pid streams [stream*] */
	M_EXEC_LIST = 17,    /* cursor -> OK entry* more cursor */
	M_EXEC_ATTACH = 18,  /* number -> OK streams [stream*] */
	M_EXEC_RELEASE = 19, /* number -> OK */
	M_SIGNAL = 20,       /* number signal tree -> OK */
	M_OPEN = 21,         /* path flags mode user -> OK [file] */
	M_STAT = 22,         /* path user follow -> OK stat target */
	M_MKDIR = 23,        /* path mode parents user -> OK created */
	M_REMOVE = 24,       /* path recursive user -> OK */
	M_RENAME = 25,       /* path to exclusive user -> OK */
	M_WALK = 26,         /* path recursive limit user -> OK [records] */
	M_PING = 27,         /* -> OK */
	M_STDIN_CLOSE = 28,  /* number -> OK */
	M_RESIZE = 29,       /* number rows columns -> OK */
	M_CHANGE = 30,       /* path below? user follow mode? uid? gid? modified? [file]? -> OK; with a descriptor that file
	                        is changed, whatever `path` names now */
	M_SYMLINK = 31,      /* path target user -> OK */
	M_LINK = 32,         /* path to user -> OK */
	M_WATCH = 33,        /* path recursive user -> OK [records] */
	M_CONNECT = 34,      /* port version | name -> OK [socket] */
	M_USAGE = 35,        /* -> OK used size */
	M_DRAFT = 36,        /* path mode user -> OK [file]; it has no name yet */
	M_PLACE = 37,        /* path exclusive user [file] -> OK */
	M_FILL = 38,         /* path user [file, source] -> OK when the source has ended and the file has all of it */
	/* spawner or worker to a new init, before anything else */
	M_GO = 40, /* [layers] */
	/* events */
	M_SANDBOX_EXITED = 64, /* id status reason oom_kills */
	M_READY = 65,          /* init is ready for requests */
	M_FAILED = 66,         /* init could not be set up: stage errno text index */
	M_EXEC_EXITED = 67,    /* number status */
	/* replies */
	M_OK = 128,
	M_ERROR = 129, /* stage errno text */
};

enum field_tag {
	T_ID = 1,        /* string */
	T_LABEL = 2,     /* bytes */
	T_DEADLINE = 3,  /* number: milliseconds of CLOCK_BOOTTIME, 0 for none */
	T_PID = 4,       /* number */
	T_STATUS = 5,    /* number: a wait status; absent where unknown or still running */
	T_REASON = 6,    /* string */
	T_ERRNO = 7,     /* number */
	T_STAGE = 8,     /* string */
	T_TEXT = 9,      /* string */
	T_CURSOR = 10,   /* number */
	T_MORE = 11,     /* number: 1 if a further page exists */
	T_ENTRY = 12,    /* nested */
	T_OOM_KILLS = 13, /* number */
	T_VERSION = 14,  /* number */
	T_INDEX = 15,    /* number */
	T_LIVE = 16,     /* number: 1 while it lives */
	/* create */
	T_CLONE_FLAGS = 32, /* number */
	T_UID_MAP = 33,     /* string, as written to /proc/pid/uid_map; empty for none */
	T_GID_MAP = 34,     /* string */
	T_OWNER = 35,       /* number: host uid of the sandbox's root, owner of its v2 cgroup */
	T_CAPS = 36,        /* number: capabilities that stay, as a bit mask */
	T_CGROUP = 37,      /* nested: path kind setting* */
	T_LAYER = 38,       /* nested: path flags idmap recursive | fstype source | "tmpfs" options |
	                       "overlay" path idmap index */
	T_OP = 39,          /* nested: opcode and what it needs, see setup.h */
	T_KIND = 40,        /* number */
	T_SETTING = 41,     /* nested: name value */
	T_NAME = 42,        /* string */
	T_VALUE = 43,       /* string */
	T_IDMAP = 44,       /* number: 1 to map owners through the sandbox's user namespace */
	T_FSTYPE = 45,      /* string */
	T_OPTIONS = 46,     /* string */
	T_OPCODE = 47,      /* number */
	T_SOURCE = 48,      /* string */
	T_SECCOMP = 49,     /* number: 1 to install the filter */
	/* exec */
	T_NUMBER = 64, /* number of an exec within its sandbox */
	T_ARG = 65,    /* string */
	T_ENV = 66,    /* string */
	T_CWD = 67,    /* string */
	T_USER = 68,   /* string */
	T_STDIN = 69,  /* number: 1 for a pipe */
	T_SIGNAL = 70, /* number */
	T_TREE = 71,   /* number */
	T_ROWS = 72,   /* number; with T_COLUMNS: on a terminal */
	T_COLUMNS = 73,
	T_STREAMS = 74, /* number: which streams come along, as a sum of 1 stdin, 2 stdout, 4 stderr; sent as stdout, stderr,
	                   stdin */
	T_PORT = 75,    /* number: a TCP port on loopback */
	/* files */
	T_PATH = 80,
	T_TO = 81,
	T_FLAGS = 82,
	T_MODE = 83,
	T_FOLLOW = 84,
	T_PARENTS = 85,
	T_CREATED = 86,
	T_RECURSIVE = 87,
	T_LIMIT = 88,
	T_STAT = 89, /* bytes: struct file_record */
	T_TARGET = 90,
	T_UID = 91,      /* number */
	T_GID = 92,      /* number */
	T_MODIFIED = 93, /* number: nanoseconds since 1970, signed */
	T_USED = 94,     /* number: bytes */
	T_SIZE = 95,     /* number: bytes */
	T_BELOW = 96,    /* string: a relative path below T_PATH, reached without following a link */
	T_EXCLUSIVE = 97, /* number: 1 where nothing may be replaced */
};

/* T_KIND of a T_CGROUP */
enum cgroup_kind {
	CGROUP_V1 = 1,
	CGROUP_V2 = 2,
};

/* T_OPCODE of a T_OP: one step of the set-up, run by the child in order */
enum setup_opcode {
	OP_MKDIR = 1,    /* path mode: an existing directory is fine */
	OP_ENTER = 2,    /* options, or index of a layer if there are none: mount a tmpfs, or that layer, over the current
	                    directory and enter it. By descriptor: the way there may be closed to this user */
	OP_MOUNT = 3,    /* source path fstype flags options: mount(2) */
	OP_MOVE = 4,     /* index path: attach layer `index` at path */
	OP_BIND = 5,     /* source path flags: clone the mount at source, set MOUNT_ATTR flags, attach at path */
	OP_SYMLINK = 6,  /* source path: an existing name is fine */
	OP_WRITE = 7,    /* path value mode flags: write a file, made if flags has O_CREAT */
	OP_PIVOT = 8,    /* path: make it the root and let go of the old one */
	OP_HOSTNAME = 9, /* value */
	OP_LOOPBACK = 10, /* bring lo up */
	OP_MASK = 11,    /* source path: OP_BIND, but a missing path is fine */
	OP_CHMOD = 12,   /* path mode */
};

#endif
