/* SPDX-License-Identifier: MIT
 *
 * What the shared segment looks like.
 *
 * One sparse tmpfs file, mapped whole by every process at an address of its own, so it holds numbers and no
 * pointers: an inode, a name, a block or a description is an index into its table, and index 0 means "none".
 * The tables lie at fixed places, far apart; memory is taken for a table in steps, with fallocate(2), before
 * its first use (segment.c).
 *
 * Who may write: everything but the fields marked "atomic" is changed only inside a critical section, through
 * its undo log (section.h).  Whoever reads without the lock copies first, checks the sequence count, and only
 * then believes what was read.
 */
#ifndef FASTSPOOL_LAYOUT_H
#define FASTSPOOL_LAYOUT_H

#include <pthread.h>
#include <stdint.h>

/** Changes whenever a structure below does: a library of another version serves nothing. */
#define LAYOUT_VERSION 7
#define LAYOUT_MAGIC   UINT64_C(0x314c4f4f50535446) /* "FTSPOOL1" */

#define BLOCK_SIZE   4096u
#define CHUNK_BLOCKS 256u                        /* blocks of a chunk, the unit of taking memory for data */
#define CHUNK_SIZE   (CHUNK_BLOCKS * BLOCK_SIZE) /* 1 MiB */

#define CHUNKS_MAX       65536u /* 64 GiB of data */
#define DESCRIPTIONS_MAX 65536u
#define NAMES_MAX        (1u << 24)
#define INODES_MAX       (1u << 24)
#define BUCKETS_MAX      (1u << 24)

/** Undo records of one critical section.  The largest section (freeing FREE_STEP blocks, a rename over a file)
 *  needs a few hundred. */
#define UNDO_MAX 4096u

/** Placeholder directories: description D is a kernel descriptor of placeholder D % PLACEHOLDERS, so that the
 *  kernel's linear list of locks of one file stays short (29 us a lock beside 1,000 others, 3.4 us beside none). */
#define PLACEHOLDERS 64u

/** Classes of a commit's duration: four an octave, from 10 us on. */
#define COMMIT_TIMES 64u

enum segment_state {
    SEGMENT_RECOVERING = 1, /* made, and the mirror is filling it from the database */
    SEGMENT_READY = 2,
    SEGMENT_FAILED = 3, /* damaged, or the database is: `failure` says what */
};

/** An aligned word of the segment as it was before the section changed it. */
struct undo {
    uint64_t offset; /* of the word, from the segment's start, a multiple of 8 */
    uint64_t before; /* its content */
};

/** A table that grows: entries [1, used) have been handed out, entries [0, capacity) have memory. */
struct table {
    uint32_t capacity; /* entries with memory behind them */
    uint32_t used;     /* first entry never handed out; 0 is never handed out */
    uint32_t free;     /* head of the list of entries given back, 0: empty */
    uint32_t count;    /* entries in use */
};

/** A list of inodes, linked both ways (lists.c). */
struct list {
    uint32_t head; /* inode numbers, 0: the list is empty */
    uint32_t tail;
};
struct link {
    uint32_t next; /* 0: the last, the first */
    uint32_t prev;
};

/* The header's fields in groups, each owned by one module.  segment.c says in one statement a group what it is in an
 * empty store. */

/** section.c: the lock, and what makes its sections whole. */
struct section_state {
    pthread_mutex_t mutex; /* robust, process-shared, type NORMAL */
    uint32_t sequence;     /* odd while a section changes the segment; atomic */
    uint32_t undo_count;   /* entries of undo[] to roll back; 0: the last section is complete; atomic */
};

/** table.c, names.c. */
struct tables_state {
    struct table inodes;
    struct table names;
    struct table descriptions;
    uint32_t buckets_capacity; /* buckets with memory */
    uint32_t buckets;          /* buckets in use: linear hashing, one is split at each insertion that fills it */
    uint64_t memory_bytes;     /* taken from the system for tables and chunks */
};

/** blocks.c. */
struct blocks_state {
    uint32_t chunks_used;    /* first chunk never taken */
    uint32_t chunks_absent;  /* head of the list of chunks given back to the system */
    uint32_t chunks_partial; /* head and tail of the list of chunks with a free block */
    uint32_t chunks_partial_tail;
    uint32_t chunks_held;   /* head of the list of chunks with quarantined blocks */
    uint32_t tables_wanted; /* 1: a table found no memory to grow, since the mirror last looked; atomic */
    uint64_t used;          /* blocks neither free nor in quarantine */
    uint64_t total;         /* blocks of all present chunks */
    uint64_t held;          /* blocks in quarantine */
};

/** inodes.c, names.c, orphans.c. */
struct tree_state {
    uint32_t root;    /* inode of the spool directory itself */
    uint32_t orphans; /* head of the list of inodes without names whose blocks are being freed in steps */
    uint64_t files;   /* inodes in use that are not directories */
    uint64_t born;    /* last number given to a name: the order of listings */
};

/** residency.c: which data is in memory. */
struct residency_state {
    struct list clean;       /* files with data in memory and all of it on the disk, the coldest first */
    struct list cold;        /* those of them that were paged in, and not opened since, the oldest first */
    uint64_t clean_files;    /* files in both lists, */
    uint64_t cold_files;     /* and in the second */
    struct list pageins;     /* evicted files that are wanted, the first request first */
    uint64_t evicted;        /* files whose data is in the database alone */
    uint64_t spilled;        /* files in spill files */
    uint64_t evictions;      /* how often a file's data left memory, */
    uint64_t brought_back;   /* and how often it was paged in */
    uint64_t checkpointed;   /* every change up to this ticket is in the database; atomic, as all below */
    uint32_t pager_wanted;   /* futex of the mirror's pager: counts requests for files and for memory */
    uint32_t pager_event;    /* futex: counts what the pager has done: files paged in, memory freed */
    uint32_t space_wanted;   /* counts writers that came to wait for memory */
    uint32_t pagein_reading; /* inode that the pager reads from the database, 0: none */
    uint32_t pagein_fatal;   /* inode whose reading ended a mirror (a damaged page), 0: none */
    uint32_t zero;
    uint64_t space_told; /* CLOCK_MONOTONIC ns of the last line to syslog that there is no memory */
};

/** tickets.c, lib/mirror/capture.c: what is not on the disk yet. */
struct tickets_state {
    struct list dirty; /* inodes with changes that are not on the disk, oldest first */
    uint64_t dirty_files;
    uint64_t dirty_bytes;                /* data bytes not yet on the disk (whole blocks) */
    uint64_t change;                     /* ticket of the last change */
    uint64_t captured;                   /* ticket of the last change that the running or last commit holds */
    uint64_t durable;                    /* every change up to this ticket is on the disk; atomic */
    uint64_t oldest_dirty;               /* CLOCK_MONOTONIC ns of the oldest change not captured; 0: none */
    uint64_t oldest_captured;            /* and of the oldest in the running commit; 0: none runs */
    uint32_t capture;                    /* counts captures, from 1: "since the last capture" is "in this number" */
    uint32_t committing;                 /* 1 while a commit copies data: freed blocks go to quarantine */
    int32_t commit_error;                /* of the last commit: 0 or a negative errno; atomic */
    uint32_t commit_event;               /* futex: counts commits that ended, well or not; atomic */
    uint64_t commits;                    /* that succeeded; atomic */
    uint64_t commit_ns;                  /* duration of the last one; atomic */
    uint32_t commit_times[COMMIT_TIMES]; /* how many took how long (durations.c); atomic */
};

/** lib/mirror/process.c, lib/spool/launch.c: the mirror process.  All atomic. */
struct mirror_state {
    uint64_t starting; /* CLOCK_MONOTONIC ns of the last start of a mirror: one starter at a time */
    uint32_t wanted;   /* futex of the mirror: counts waiters for a commit as they come */
    int32_t pid;       /* for status only: whether it lives is known by flock */
};

/** lib/mirror/journal.c: batches.  All atomic. */
struct journal_state {
    uint64_t batch;   /* number last given to a batch of the journal, whatever became of it */
    uint64_t durable; /* number of the last batch whose fdatasync returned 0 */
};

/** lib/mirror/checkpoint.c: the database.  All atomic. */
struct disk_state {
    uint64_t owed;            /* bytes of the disk that the next checkpoint may take */
    uint64_t reusable;        /* bytes of free pages in the database */
    int32_t checkpoint_error; /* of the last checkpoint: 0 or a negative errno */
    uint32_t zero;
};

/** lib/mirror/recovery.c.  All atomic. */
struct recovery_state {
    uint64_t done;      /* records that the recovery has dealt with, */
    uint64_t total;     /* of so many */
    int32_t error;      /* of its last try, with `failure`; it tries on; 0 or a negative errno */
    uint32_t too_small; /* 1: FAILED for want of memory: a larger `memory` may try again */
};

struct header {
    /* What the segment is (segment.c): written when it is made, but for the first line. */
    uint64_t magic;                           /* LAYOUT_MAGIC, written last at creation */
    uint32_t version;                         /* LAYOUT_VERSION */
    uint32_t state;                           /* enum segment_state; atomic and a futex: waiters for READY */
    char failure[256];                        /* why FAILED, or what recovery.error means: section_failure() */
    char boot_id[40];                         /* of the kernel that made it: robust mutexes end with their kernel */
    uint64_t pid_namespace;                   /* st_ino of /proc/self/ns/pid of the process that made it */
    uint64_t device;                          /* st_dev and st_ino of the spool directory: */
    uint64_t inode;                           /*   a moved or copied spool has another */
    uint64_t memory_limit;                    /* bytes; atomic */
    uint64_t reserve;                         /* free blocks that only the mirror may take, for page-ins; atomic */
    uint64_t flush_interval;                  /* nanoseconds */
    uint64_t hash_seed;                       /* random: where a name falls can't be foretold */
    uint64_t placeholder_device;              /* st_dev of the placeholder directories */
    uint64_t placeholder_inode[PLACEHOLDERS]; /* and their st_ino: what tells ours from other descriptors */
    uint32_t owner;                           /* uid and gid of the spool directory */
    uint32_t group;

    struct section_state section;
    struct tables_state tables;
    struct blocks_state blocks;
    struct tree_state tree;
    struct residency_state residency;
    struct tickets_state tickets;
    struct mirror_state mirror;
    struct journal_state journal;
    struct disk_state disk;
    struct recovery_state recovery;

    /* Last, so that what every section touches lies on one page: the child of a fork pays for each page it touches. */
    struct undo undo[UNDO_MAX];
};

enum inode_flags {
    INODE_USED = 1,
    INODE_DIRTY = 2,        /* in the dirty list */
    INODE_PERSISTED = 4,    /* the database holds a record of this number: outlives the inode until deleted there */
    INODE_ORPHAN = 8,       /* in the orphan list */
    INODE_CLEAN = 16,       /* in the clean list, or the cold one */
    INODE_EVICTED = 32,     /* its data is in the database alone: who opens it waits until it is in memory again */
    INODE_WANTED = 64,      /* evicted, and in the list of faults */
    INODE_REFERENCED = 128, /* clean, and opened since it was last looked at: gets a second chance */
    INODE_SPILLED = 256,    /* open, and its data is in a spill file */
    INODE_UNREADABLE = 512, /* evicted, and reading it from the database was the end of a mirror */
    INODE_COLD = 1024,      /* brought back: where it is clean, it is in the cold list */
    INODE_AHEAD = 2048,     /* asked for, or brought back, before anybody opened it */
};

#define INODE_DIRECT  4u
#define INDEX_ENTRIES (BLOCK_SIZE / 4) /* block numbers in an index block */

/** What a file's number leads to, 128 bytes. */
struct inode {
    uint32_t generation; /* counts the files that had this number */
    uint16_t mode;       /* type and permission bits, as st_mode */
    uint16_t flags;      /* enum inode_flags */
    uint32_t uid;
    uint32_t gid;
    uint64_t size;  /* bytes; of a directory: 4096 */
    uint64_t atime; /* nanoseconds since 1970 */
    uint64_t mtime;
    uint64_t ctime;
    uint32_t links;   /* names; of a directory: 2 + subdirectories */
    uint32_t opens;   /* open file descriptions; -> freed when both are 0 */
    uint32_t names;   /* first of its names, linked by name.sibling; of a free inode: the next free one */
    uint32_t version; /* counts changes to blocks already published: readers without lock retry */
    union {
        struct {                           /* a file: inode.size / BLOCK_SIZE is the index of its last block */
            uint32_t direct[INODE_DIRECT]; /* blocks, 0: a hole */
            uint32_t indirect;             /* index block */
            uint32_t double_indirect;      /* index block of index blocks */
        } map;
        struct {            /* a directory */
            uint32_t first; /* its names, oldest first, linked by name.next */
            uint32_t last;
            uint32_t entries; /* how many */
            uint32_t parent;  /* inode of the directory above */
        } dir;
    };
    uint32_t blocks;     /* blocks held, index blocks included */
    struct link list;    /* the dirty, the clean or the cold list: an inode is in one of them at the most */
    uint32_t changed_in; /* header.capture at the last change of any kind */
    uint32_t dirty_from; /* data blocks [from, to) of the file are not on the disk */
    uint32_t dirty_to;
    union {
        struct {                 /* data in memory */
            uint32_t data_in;    /* header.capture at the last change of data */
            uint32_t since_from; /* lowest data block changed in `data_in` */
        };
        struct link pagein;   /* evicted and wanted: the list of faults */
        int32_t pagein_error; /* evicted and not wanted: of the last page-in: 0 or a negative errno */
    };
    uint64_t ticket; /* header.change at the last change of any kind: durable when header.durable is */
};

/** What leads to a name along a hash chain: its index, and above it eight signs: of each name from there to the chain's
 * end one is set, which its hash says.  So most names that are not there are known by the bucket alone (names.c). */
#define CHAIN_INDEX (NAMES_MAX - 1)
#define CHAIN_SIGNS (~CHAIN_INDEX)

#define NAME_INLINE 27u /* bytes of a name that fit: Exim's lasting ones have at most 25 */
#define NAME_MORE   44u /* bytes in each further entry of a long name */

/** In name.inode: this entry is the continuation of another. */
#define NAME_CONTINUES UINT32_MAX

/** A name in a directory, 64 bytes.  A longer name goes on in further entries of the table. */
struct name {
    uint64_t born;   /* grows along the directory's list: a listing goes on behind it */
    uint32_t inode;  /* 0: the entry is free */
    uint32_t parent; /* inode of the directory */
    uint32_t chain;  /* next in the hash bucket, with signs; of a free entry: the next free one */
    uint32_t next;   /* next and previous in the directory, in order of birth */
    uint32_t prev;
    uint32_t sibling; /* next name of the same inode */
    uint32_t more;    /* struct name_more with the rest of the name, 0: none */
    uint8_t length;   /* of the whole name, bytes */
    char text[NAME_INLINE];
};

/** The rest of a long name; `inode` and `chain` lie where struct name has them. */
struct name_more {
    uint64_t zero;
    uint32_t inode; /* NAME_CONTINUES while in use, 0: free */
    uint32_t more;  /* next entry, 0: none */
    uint32_t chain; /* of a free entry */
    char text[NAME_MORE];
};

enum description_state {
    DESCRIPTION_FREE = 0,
    DESCRIPTION_POOLED = 1, /* taken by a process for its pool, nothing open */
    DESCRIPTION_OPEN = 2,
};

/** An open file description, 64 bytes. */
struct description {
    uint64_t cookie; /* 40 random bits, repeated in the kernel's file offset of the placeholder */
    uint64_t offset; /* atomic: bytes; of a directory: the position of the listing */
    uint32_t state;  /* enum description_state */
    uint32_t inode;
    uint32_t generation; /* of the inode */
    uint32_t flags;      /* of open(2): access mode, O_APPEND, O_NONBLOCK...; atomic */
    uint32_t next_free;
    uint32_t zero;
    uint64_t pooled_at; /* CLOCK_MONOTONIC ns when it was taken: unlocked and old is dead; 0: it was locked; atomic */
    uint64_t pad[2];
};

enum chunk_state {
    CHUNK_ABSENT = 0, /* no memory */
    CHUNK_PRESENT = 1,
    CHUNK_LEAVING = 2, /* empty, and its memory is being given back */
};

/** CHUNK_BLOCKS blocks of data. */
struct chunk {
    uint64_t free[CHUNK_BLOCKS / 64]; /* bit set: the block is free */
    uint64_t held[CHUNK_BLOCKS / 64]; /* bit set: freed while a commit copied; free again at its end */
    uint32_t state;                   /* enum chunk_state */
    uint32_t free_count;
    uint32_t next; /* partial list, or absent list; chunk number + 1 */
    uint32_t prev;
    uint32_t held_next; /* list of chunks with held blocks */
    uint32_t held_count;
    uint32_t epoch; /* counts how often the memory went: a slow grower notices */
    uint32_t zero;
    uint64_t emptied; /* CLOCK_MONOTONIC ns when it last became empty */
    uint64_t pad[3];
};

_Static_assert(sizeof(struct inode) == 128, "an inode is 128 bytes");
_Static_assert(sizeof(struct name) == 64 && sizeof(struct name_more) == 64, "a name entry is 64 bytes");
_Static_assert(sizeof(struct description) == 64, "a description is 64 bytes");
_Static_assert(sizeof(struct chunk) == 128, "a chunk is 128 bytes");

/* Where the tables lie, bytes from the segment's start. */
#define HEADER_SIZE     (UINT64_C(1) << 20)
#define CHUNKS_AT       HEADER_SIZE
#define DESCRIPTIONS_AT (CHUNKS_AT + (uint64_t)CHUNKS_MAX * sizeof(struct chunk))
#define BUCKETS_AT      (DESCRIPTIONS_AT + (uint64_t)DESCRIPTIONS_MAX * sizeof(struct description))
#define INODES_AT       (BUCKETS_AT + (uint64_t)BUCKETS_MAX * sizeof(uint32_t))
#define NAMES_AT        (INODES_AT + (uint64_t)INODES_MAX * sizeof(struct inode))
#define DATA_AT         (NAMES_AT + (uint64_t)NAMES_MAX * sizeof(struct name))
#define SEGMENT_SIZE    (DATA_AT + (uint64_t)CHUNKS_MAX * CHUNK_SIZE)

_Static_assert(sizeof(struct header) <= HEADER_SIZE, "the header fits");

#endif
