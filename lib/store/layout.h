/* SPDX-License-Identifier: MIT
 *
 * The layout of the shared segment.
 *
 * The segment is one sparse tmpfs file.  Every process maps what of it has memory (span.h), at an address of its own,
 * so the segment holds numbers and no pointers.  An inode, a name, a block or a description is an index into its table.
 * Index 0 means "none".  The tables lie at fixed places, far apart.  A table takes memory in steps, with fallocate(2),
 * before its first use (table.c, blocks.c).
 *
 * Rules of access:
 *   - A field marked "atomic" may change at any time, by STORE() or ATOMIC() (base/atomic.h).
 *   - Every other field changes only inside a critical section, through its undo log (section.h).  `failure` is the
 *     one exception: section_failure() writes it.
 *   - A reader without the lock copies first, then checks the sequence count, and only then uses the copy.
 *   - A counter that only guides a decision may be read alone, with LOAD(): it may be of a section that is rolled back.
 */
#ifndef FASTSPOOL_LAYOUT_H
#define FASTSPOOL_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

/** Changes with every structure below.  A library serves no segment of another version. */
#define LAYOUT_VERSION 16
#define LAYOUT_MAGIC   UINT64_C(0x314c4f4f50535446) /* "FTSPOOL1" */

/** By this the fastspool command finds in the library's file which version its stores have.  All versions keep the
 *  form. */
#define LAYOUT_MARK                                                                        \
    {                                                                                      \
        '\x7f', 'f', 'a', 's', 't', 's', 'p', 'o', 'o', 'l', ' ', 'h', 'a', 's', ':', '\n' \
    }

struct layout_mark {
    char mark[16];
    uint32_t version; /* LAYOUT_VERSION */
};

#define BLOCK_SIZE   4096u
#define CHUNK_BLOCKS 256u                        /* blocks of a chunk: memory for data comes and goes by the chunk */
#define CHUNK_SIZE   (CHUNK_BLOCKS * BLOCK_SIZE) /* 1 MiB */

/** A block can be given away by parts: most of Exim's files have less than 1 kB, or end in less. */
#define PART_SIZE   1024u
#define BLOCK_PARTS (BLOCK_SIZE / PART_SIZE)

/** The number of a piece: parts of one block, one behind the other.  That of a whole block is the block's. */
#define PIECE_BLOCK   (CHUNKS_MAX * CHUNK_BLOCKS - 1) /* of its bits: the block, */
#define PIECE_FIRST   24                              /* from this one on, two: its first part, */
#define PIECE_MISSING 26                              /* two more: parts that it has less than a block; then zeros */

#define CHUNKS_MAX       65536u /* 64 GiB of data */
#define DESCRIPTIONS_MAX 65536u
#define NAMES_MAX        (1u << 24)
#define INODES_MAX       (1u << 24)
#define BUCKETS_MAX      (1u << 24)

/** Undo entries of one critical section.  The largest section (freeing DATA_FREE_STEP blocks, a rename over a file)
 *  needs a few hundred. */
#define UNDO_MAX 4096u

/** Placeholder directories.  Description D is a kernel descriptor of placeholder D % PLACEHOLDERS.  This keeps the
 *  kernel's linear list of locks of one file short: a lock takes 29 us beside 1,000 others, 3.4 us beside none. */
#define PLACEHOLDERS 64u

/** Classes of the duration of a commit: four an octave, from 10 us on. */
#define COMMIT_TIMES 64u

/** Bytes that move between processors in one piece. */
#define CACHE_LINE 64u

/** Entries of the history, and bytes of a name in it. */
#define HISTORY_MAX  256u
#define HISTORY_NAME 15u

enum segment_state {
    SEGMENT_RECOVERING = 1, /* new: the mirror fills it from the database */
    SEGMENT_READY = 2,
    SEGMENT_FAILED = 3, /* the segment or the database is damaged: `failure` says how */
};

/** An undo entry: an aligned word of the segment as it was before the section changed it. */
struct undo {
    uint64_t offset; /* of the word, from the segment's start, a multiple of 8 */
    uint64_t before; /* its content */
};

enum history_kind {
    HISTORY_SECTION = 1,
    HISTORY_ROLLBACK = 2, /* of a section whose process died; the result: undo entries */
    HISTORY_COMMIT = 3,
};

/** Something that has happened (history.c): 32 bytes.  No entry, or a part of one, may be nonsense to a reader. */
struct history_entry {
    uint64_t when; /* CLOCK_MONOTONIC ns, coarse */
    int32_t result;
    uint32_t thread;         /* for a reader's eyes only */
    char name[HISTORY_NAME]; /* of the section's body, cut; shorter: zeros follow */
    uint8_t kind;            /* enum history_kind; 0: there was never an entry here */
};

/** A table that grows.  Entries [1, used) have been handed out.  Entries [0, capacity) have memory. */
struct table {
    uint32_t capacity; /* entries with memory */
    uint32_t used;     /* first entry never handed out; entry 0 never is */
    uint32_t free;     /* head of the list of free entries, 0: empty */
    uint32_t count;    /* entries in use */
};

/** A list of inodes (lists.c) or of chunks (blocks.c), linked both ways. */
struct list {
    uint32_t head; /* inode numbers, or those of chunks + 1; 0: the list is empty */
    uint32_t tail;
};
struct link {
    uint32_t next; /* 0: the last, the first */
    uint32_t prev;
};

/* The fields of the header in groups.  Each group belongs to the modules that its comment names.  segment.c sets each
 * group to its value in an empty store with one statement. */

/** section.c: the lock and the undo log. */
struct section_state {
    uint32_t lock;       /* thread id of the holder, FUTEX_WAITERS, FUTEX_OWNER_DIED; 0: free (mutex.c); atomic */
    uint32_t sequence;   /* odd while a section changes the segment; atomic */
    uint32_t undo_count; /* undo entries to roll back; 0: the last section is complete; atomic */
    uint32_t rollbacks;  /* odd while a section is rolled back; atomic.  A rollback takes inode.version back too: a
                          * reader of data that met the section's blocks would find the version that it began with */
};

/** table.c, names.c, blocks.c. */
struct tables_state {
    struct table inodes;
    struct table names;
    struct table descriptions;
    uint32_t buckets_capacity; /* buckets with memory */
    uint32_t buckets;          /* buckets in use (linear hashing: an insertion that needs one more splits one) */
    uint64_t memory_bytes;     /* of tables and chunks, taken from the system */
};

/** blocks.c. */
struct blocks_state {
    uint32_t chunks_used;   /* first chunk never taken */
    uint32_t chunks_absent; /* head of the list of chunks whose memory went back to the system */
    struct list partial;    /* chunks with a free block */
    struct list broken;     /* chunks with a free part of a broken block, which has others in use */
    uint32_t chunks_held;   /* head of the list of chunks with quarantined blocks */
    uint32_t tables_wanted; /* 1: a table has found no memory to grow since the mirror last looked; atomic */
    uint64_t used;          /* blocks neither free nor in quarantine with all their parts */
    uint64_t total;         /* blocks of all present chunks */
    uint64_t held;          /* blocks in quarantine with all their parts */
};

/** inodes.c, names.c, orphans.c. */
struct tree_state {
    uint32_t root;    /* inode of the spool directory itself */
    uint32_t orphans; /* head of the list of inodes without names whose blocks are freed in steps */
    uint64_t files;   /* inodes in use that are not directories */
    uint64_t born;    /* last birth number of a name: listings go by it */
};

/** residency.c: which data is in memory. */
struct residency_state {
    struct list clean;       /* clean files with data in memory, the least recently used first */
    struct list cold;        /* likewise, but paged in and not opened since, the oldest first */
    uint64_t clean_files;    /* files in both lists */
    uint64_t cold_files;     /* files in `cold` */
    struct list pageins;     /* evicted files to page in, the oldest request first */
    uint64_t evicted;        /* files with data in the database alone */
    uint64_t spilled;        /* files with data in a spill file */
    uint64_t evictions;      /* evictions so far */
    uint64_t brought_back;   /* page-ins so far */
    uint64_t checkpointed;   /* every change up to this ticket is in the database; atomic, as all below */
    uint32_t pager_wanted;   /* futex of the pager: counts requests for page-ins and for memory */
    uint32_t pager_event;    /* futex of its waiters: counts files paged in and memory freed */
    uint32_t space_wanted;   /* counts waits of writers for memory */
    uint32_t pagein_reading; /* inode that the pager now reads from the database, 0: none */
    uint32_t pagein_fatal;   /* inode whose reading killed a mirror (a damaged page), 0: none */
    uint32_t zero;
    uint64_t space_told; /* CLOCK_MONOTONIC ns of the last line to syslog about missing memory */
};

/** tickets.c, lib/mirror/capture.c: changes that are not on the disk yet. */
struct tickets_state {
    struct list dirty; /* inodes with changes that are not on the disk, the oldest first */
    uint64_t dirty_files;
    uint64_t dirty_bytes;                /* of data that is not on the disk, in whole blocks */
    uint64_t change;                     /* ticket of the last change */
    uint64_t captured;                   /* ticket of the last change in the running or last commit */
    uint64_t durable;                    /* every change up to this ticket is on the disk; atomic */
    uint64_t oldest_dirty;               /* CLOCK_MONOTONIC ns of the oldest change not captured; 0: none */
    uint64_t oldest_captured;            /* of the oldest change in the running commit; 0: none runs */
    uint32_t capture;                    /* number of the last capture, from 1 on: inode.changed_in, inode.data_in */
    uint32_t committing;                 /* 1: a commit copies data; freed blocks go to quarantine */
    int32_t commit_error;                /* result of the last commit: 0 or a negative errno; atomic */
    uint32_t commit_event;               /* futex of its waiters: counts commits, failed ones too; atomic */
    uint64_t commits;                    /* commits that succeeded; atomic */
    uint64_t commit_ns;                  /* duration of the last commit; atomic */
    uint64_t commits_ns;                 /* of all that succeeded, together; atomic */
    uint32_t commit_times[COMMIT_TIMES]; /* commits of each class of duration (durations.c); atomic */
};

/** lib/mirror/process.c, lib/spool/launch.c: the mirror process.  All atomic. */
struct mirror_state {
    uint64_t starting;    /* CLOCK_MONOTONIC ns of the last start of a mirror: one process starts it at a time */
    uint64_t beat;        /* CLOCK_MONOTONIC ns of its last sign of life */
    uint64_t lock;        /* number of the file that it has locked (lib/mirror/alone.c); 0: there was none yet */
    uint64_t told;        /* the sign of life that was its last one when syslog was told that no other came (await.c) */
    uint64_t gave_up;     /* CLOCK_MONOTONIC ns of the last line to syslog about one that could not write and ended;
                             0: commits have succeeded since (committer.c) */
    uint32_t wanted;      /* futex of the mirror: counts the calls that came to wait for a commit */
    uint32_t ending;      /* 1: `fastspool stop` wants it to end; a new mirror sets it to 0 */
    int32_t pid;          /* for a reader's eyes: nothing acts on it but where the kernel says the same (alone.c) */
    uint32_t enough;      /* the count of `wanted` that wakes the mirror; atomic */
    int32_t gave_up_with; /* the negative errno of that */
    uint32_t zero;
};

enum view_status {
    VIEW_NONE = 0,    /* none, or not all of the disk's files are imported yet */
    VIEW_MOUNTED = 1, /* all files are in the store: no process looks for any on the disk */
};

/** Why no view can be mounted. */
enum view_obstacle {
    VIEW_NO_DEVICE = 1, /* /dev/fuse can't be opened */
    VIEW_NO_RIGHT = 2,  /* CAP_SYS_ADMIN is missing */
    VIEW_NO_MOUNT = 3,  /* the kernel refuses the mount */
    VIEW_OTHER = 4,     /* the view of another state of the spool lives */
};

/** lib/view/: the store as a mounted file system.  All atomic. */
struct view_state {
    uint64_t starting;    /* CLOCK_MONOTONIC ns of the last start of a view: one process starts it at a time */
    uint32_t status;      /* enum view_status */
    uint32_t unavailable; /* errno: a view can't be mounted on this machine, and syslog says so; 0: none has failed */
    uint32_t obstacle;    /* enum view_obstacle */
    uint32_t locked;      /* what the last import has left on the disk (lib/plain/import.h): messages in work, */
    uint32_t conflicts;   /*   messages and files of which the store has others, */
    uint32_t left;        /*   and files that can't be taken */
};

/** lib/mirror/journal.c: batches; lib/mirror/journal_files.c: where they are.  All atomic. */
struct journal_state {
    uint64_t batch;   /* number of the last batch, written or not; a number is never used twice */
    uint64_t durable; /* number of the last batch whose fdatasync returned 0 */
    uint64_t device;  /* st_dev and st_ino of the directory that has held all of it; 0: none has yet */
    uint64_t inode;
    uint64_t born; /* its time of birth, ns since 1970; 0: its file system has none */
};

/** lib/mirror/journal_files.c, lib/mirror/checkpointer.c: room on the disk, and the last checkpoint.  All atomic. */
struct disk_state {
    uint64_t owed;            /* bytes of the disk that the next checkpoint may need */
    uint64_t reusable;        /* bytes of free pages in the database */
    int32_t checkpoint_error; /* result of the last checkpoint: 0 or a negative errno */
    uint32_t zero;
};

/** lib/mirror/recovery.c, lib/mirror/process.c.  All atomic. */
struct recovery_state {
    uint64_t done;      /* steps that the recovery has made; it looks at each inode three times */
    uint64_t total;     /* steps that it has to make */
    int32_t error;      /* result of its last try, and `failure` says more; it tries again; 0 or a negative errno */
    uint32_t too_small; /* 1: FAILED for lack of memory; an attach with a larger `memory` tries again */
};

/** How a segment of any version is released (release.c): offsets in the header, and its size, in bytes. */
struct header_way {
    uint32_t ending;    /* of mirror.ending, 4 bytes */
    uint32_t wanted;    /* of mirror.wanted, 4 bytes */
    uint32_t unwritten; /* of tickets.dirty_files, 8 bytes */
    uint32_t size;
};

struct header {
    /* Identity of the segment (segment.c): written at its creation, except for atomic fields and `failure`.  An
     * attaching process compares it with what the kernel says of the spool and of itself, and then uses its own copies:
     * the owner, devices and inode numbers in struct fastspool. */
    uint64_t magic;         /* LAYOUT_MAGIC, written last at creation */
    uint32_t version;       /* LAYOUT_VERSION */
    uint32_t state;         /* enum segment_state; a futex of the waiters for READY; atomic */
    char failure[256];      /* why FAILED, or what recovery.error means: section_failure() */
    uint64_t pid_namespace; /* of those that use it (namespace_of_pids()); atomic */
    struct header_way way;
    /* What stands before this line stays so in all versions. */
    uint64_t memory_limit;                    /* bytes; atomic */
    uint64_t reserve;                         /* blocks that only the mirror may take, for page-ins; atomic */
    uint64_t flush_interval;                  /* nanoseconds */
    uint64_t hash_seed;                       /* random: no user can predict the bucket of a name */
    uint64_t placeholder_inode[PLACEHOLDERS]; /* st_ino of the placeholder directories: they identify our descriptors */

    /* Every section changes these two: they share a line of the processor's cache. */
    struct section_state section __attribute__((aligned(CACHE_LINE)));
    uint64_t history_count; /* entries ever made: the next one is history[history_count % HISTORY_MAX] */
    struct tables_state tables;
    struct blocks_state blocks;
    struct tree_state tree;
    struct residency_state residency;
    struct tickets_state tickets;
    struct mirror_state mirror;
    struct view_state view;
    struct journal_state journal;
    struct disk_state disk;
    struct recovery_state recovery;

    /* Last, so that the fields that every section touches share a page: a forked child pays for each page it touches.
     */
    struct undo undo[UNDO_MAX];
    struct history_entry history[HISTORY_MAX] __attribute__((aligned(BLOCK_SIZE))); /* two pages */
};

enum inode_flags {
    INODE_USED = 1,
    INODE_DIRTY = 2,             /* in the dirty list */
    INODE_PERSISTED = 4,         /* a batch or the database may hold this number: its end must be written */
    INODE_ORPHAN = 8,            /* in the orphan list */
    INODE_CLEAN = 16,            /* in the clean or the cold list */
    INODE_EVICTED = 32,          /* its data is in the database alone; an open waits for the page-in */
    INODE_WANTED = 64,           /* evicted, and in the list of page-ins */
    INODE_REFERENCED = 128,      /* clean, and opened since the evictor last looked: gets a second chance */
    INODE_SPILLED = 256,         /* open, with its data in a spill file */
    INODE_UNREADABLE = 512,      /* evicted, and reading it from the database killed a mirror */
    INODE_COLD = 1024,           /* paged in: when clean, it joins the cold list */
    INODE_AHEAD = 2048,          /* prefetched: requested or paged in before any open */
    INODE_NOTED = 4096,          /* a description of it has a noted lock (noted.c) */
    INODE_AWAITED = 8192,        /* and a process waits for it */
    INODE_LOCKS_KERNELS = 16384, /* until nobody has it open, its further locks are the kernel's */
};

#define INODE_DIRECT  4u
#define INDEX_ENTRIES (BLOCK_SIZE / 4) /* block numbers in an index block */

/** Blocks and bytes of a file, at most: 4 GiB and some. */
#define FILE_BLOCKS_MAX (INODE_DIRECT + INDEX_ENTRIES + INDEX_ENTRIES * INDEX_ENTRIES)
#define FILE_SIZE_MAX   ((uint64_t)FILE_BLOCKS_MAX * BLOCK_SIZE)

/** A file or directory, 128 bytes. */
struct inode {
    uint32_t generation; /* counts the files that have had this number */
    uint16_t mode;       /* type and permission bits, as st_mode */
    uint16_t flags;      /* enum inode_flags */
    uint32_t uid;
    uint32_t gid;
    uint64_t size;  /* bytes; of a directory: 4096 */
    uint64_t atime; /* nanoseconds since 1970 */
    uint64_t mtime;
    uint64_t ctime;
    uint32_t links;   /* names; of a directory: 2 + subdirectories */
    uint32_t opens;   /* open file descriptions; the inode is freed when links and opens are 0 */
    uint32_t names;   /* first of its names, linked by name.sibling; of a free inode: the next free inode */
    uint32_t version; /* number of the section that last changed published blocks: a reader retries (data.c) */
    union {
        struct {                           /* a file: inode.size / BLOCK_SIZE is the index of its last block */
            uint32_t direct[INODE_DIRECT]; /* pieces, 0: a hole; those of the index blocks are whole blocks */
            uint32_t indirect;             /* index block */
            uint32_t double_indirect;      /* index block of index blocks */
        } map;
        struct {            /* a directory */
            uint32_t first; /* its names, the oldest first, linked by name.next */
            uint32_t last;
            uint32_t entries; /* number of its names */
            uint32_t parent;  /* inode of the directory above */
        } dir;
    };
    uint32_t parts;      /* parts of blocks held, index blocks included */
    struct link list;    /* in the dirty, the clean or the cold list, at most one of them */
    uint32_t changed_in; /* tickets.capture at the last change of any kind */
    uint32_t dirty_from; /* data blocks [from, to) of the file are not on the disk */
    uint32_t dirty_to;
    union {
        struct {                 /* while its data is in memory */
            uint32_t data_in;    /* tickets.capture at the last change of data */
            uint32_t since_from; /* lowest data block changed in `data_in` */
        };
        struct link pagein;   /* evicted and wanted: in the list of page-ins */
        int32_t pagein_error; /* evicted and not wanted: result of its last page-in, 0 or a negative errno */
    };
    uint64_t ticket; /* tickets.change at the last change of any kind; durable once tickets.durable has reached it */
};

/** A chain link: 24 bits of index and an 8-bit filter.  Every name from here to the end of the chain sets one bit
 *  chosen by its hash, so most misses end at the bucket (names.c). */
#define CHAIN_INDEX  (NAMES_MAX - 1)
#define CHAIN_FILTER (~CHAIN_INDEX)

#define NAME_INLINE 27u /* bytes of a name that fit its entry; Exim's lasting names have at most 25 */
#define NAME_MORE   44u /* bytes of a long name in each further entry */

/** In name.inode: the entry continues another one. */
#define NAME_CONTINUES UINT32_MAX

/** A name in a directory, 64 bytes.  A longer name continues in further entries of the table. */
struct name {
    uint64_t born;   /* birth number: grows along the list of the directory; a listing resumes behind it */
    uint32_t inode;  /* 0: the entry is free */
    uint32_t parent; /* inode of the directory */
    uint32_t chain;  /* link to the next name of the bucket; of a free entry: the next free entry */
    uint32_t next;   /* next and previous in the directory, in order of birth */
    uint32_t prev;
    uint32_t sibling; /* next name of the same inode */
    uint32_t more;    /* entry (struct name_more) with the rest of the name, 0: none */
    uint8_t length;   /* of the whole name, bytes */
    char text[NAME_INLINE];
};

/** The rest of a long name.  `inode` and `chain` lie where struct name has them. */
struct name_more {
    uint64_t zero;
    uint32_t inode; /* NAME_CONTINUES while in use, 0: free */
    uint32_t more;  /* next entry, 0: none */
    uint32_t chain; /* of a free entry */
    char text[NAME_MORE];
};

enum description_state {
    DESCRIPTION_FREE = 0,
    DESCRIPTION_POOLED = 1, /* in the pool of a process, nothing open */
    DESCRIPTION_OPEN = 2,
};

/** An open file description, 64 bytes. */
struct description {
    uint64_t cookie; /* 40 random bits; the kernel's file offset of the placeholder repeats them */
    uint64_t offset; /* bytes; of a directory: position of the listing; atomic */
    uint32_t state;  /* enum description_state */
    uint32_t inode;
    uint32_t generation; /* of the inode */
    uint32_t flags;      /* of open(2): access mode, O_APPEND, O_NONBLOCK...; atomic */
    uint32_t next_free;
    uint32_t locker; /* pid of the process that has a lock noted here (noted.c), 0: none */
    /* When the number was taken, CLOCK_MONOTONIC ns; 0: its byte is locked.  If it is old and unlocked, its process is
     * dead.  UINT64_MAX: its placeholder was replaced, and nobody can tell.  Atomic. */
    uint64_t pooled_at;
    uint64_t lock_from; /* the noted lock: bytes [from, to) of the file, for writing */
    uint64_t lock_to;
};

enum chunk_state {
    CHUNK_ABSENT = 0, /* no memory */
    CHUNK_PRESENT = 1,
    CHUNK_LEAVING = 2, /* empty, and its memory goes back to the system */
};

#define CHUNK_WORDS (CHUNK_BLOCKS * BLOCK_PARTS / 64) /* of a bitmap of its parts */

/** CHUNK_BLOCKS blocks of data. */
struct chunk {
    uint64_t free[CHUNK_WORDS]; /* bit set: the part of a block is free */
    uint64_t held[CHUNK_WORDS]; /* bit set: freed while a commit copied; free when the commit ends */
    uint32_t state;             /* enum chunk_state */
    uint32_t free_count;        /* blocks that are free with all their parts */
    uint32_t broken_count;      /* free parts of other blocks */
    uint32_t held_count;        /* parts in quarantine */
    struct link partial;        /* in the list of that name, and in the absent list; chunk number + 1 */
    struct link broken;         /* in the list of that name */
    uint32_t held_next;         /* in the list of chunks with quarantined blocks */
    uint32_t epoch;             /* counts how often its memory went: a slow blocks_add_chunk() notices */
    uint64_t emptied;           /* CLOCK_MONOTONIC ns when it last became empty */
    uint64_t pad[26];
};

#define SHARE_A_WORD(type, first, second) \
    _Static_assert(offsetof(type, first) % 8 == 0 && offsetof(type, second) == offsetof(type, first) + 4, "one word")
SHARE_A_WORD(struct header, tables.inodes.free, tables.inodes.count);
SHARE_A_WORD(struct header, tables.names.free, tables.names.count);
SHARE_A_WORD(struct header, tables.descriptions.free, tables.descriptions.count);
SHARE_A_WORD(struct inode, dir.first, dir.last);
SHARE_A_WORD(struct inode, dirty_from, dirty_to);
SHARE_A_WORD(struct inode, data_in, since_from);
SHARE_A_WORD(struct description, state, inode);
SHARE_A_WORD(struct description, generation, flags);
#undef SHARE_A_WORD

_Static_assert(sizeof(struct history_entry) == 32, "an entry of the history is 32 bytes");
_Static_assert(sizeof(struct inode) == 128, "an inode is 128 bytes");
_Static_assert(sizeof(struct name) == 64 && sizeof(struct name_more) == 64, "a name entry is 64 bytes");
_Static_assert(sizeof(struct description) == 64, "a description is 64 bytes");
_Static_assert(sizeof(struct chunk) == 512, "a chunk is 512 bytes, and none lies in two pages");

/* Where the tables lie, bytes from the segment's start.  The kernel maps a huge page by one entry only where a mapping
 * covers all of it, so what is mapped by itself begins with one.  The first has the header and the chunks of 2 GiB. */
#define HUGE_PAGE       (UINT64_C(2) << 20)
#define HEADER_SIZE     (UINT64_C(1) << 20)
#define CHUNKS_AT       HEADER_SIZE
#define DESCRIPTIONS_AT (CHUNKS_AT + (uint64_t)CHUNKS_MAX * sizeof(struct chunk))
#define DESCRIPTIONS_TO (DESCRIPTIONS_AT + (uint64_t)DESCRIPTIONS_MAX * sizeof(struct description))
#define BUCKETS_AT      ((DESCRIPTIONS_TO + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE)
#define INODES_AT       (BUCKETS_AT + (uint64_t)BUCKETS_MAX * sizeof(uint32_t))
#define NAMES_AT        (INODES_AT + (uint64_t)INODES_MAX * sizeof(struct inode))
#define DATA_AT         (NAMES_AT + (uint64_t)NAMES_MAX * sizeof(struct name))
#define SEGMENT_SIZE    (DATA_AT + (uint64_t)CHUNKS_MAX * CHUNK_SIZE)

_Static_assert(sizeof(struct header) <= HEADER_SIZE, "the header fits");
_Static_assert(offsetof(struct header, tables) - offsetof(struct header, section) <= CACHE_LINE,
               "what every section changes is in one line");
_Static_assert(INODES_AT % HUGE_PAGE == 0 && NAMES_AT % HUGE_PAGE == 0 && DATA_AT % HUGE_PAGE == 0,
               "what is mapped by itself begins with a huge page");

#endif
