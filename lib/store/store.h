/* SPDX-License-Identifier: MIT
 *
 * What the rooms of lib/ share, and what shim/ and tools/ may use besides include/fastspool.h.
 *
 * Names: fastspool_x() is public; room_x() is shared inside the library; static functions have no prefix.
 * Every function returns 0 or more, or a negative errno.
 */
#ifndef FASTSPOOL_STORE_H
#define FASTSPOOL_STORE_H

#include "fastspool.h"
#include "store/layout.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/futex.h"
#include "base/places.h"
#include "base/rights.h"

#include <stddef.h>

_Static_assert(ERROR_MAX == FASTSPOOL_ERROR_MAX, "a sentence is as long as the public header says");
_Static_assert(PLACES_PATH_MAX > FASTSPOOL_PATH_MAX + 48, "any state directory, and what is below it");

/** One attached spool, private to the process. */
struct fastspool {
    char *base;            /* the segment, mapped */
    struct header *header; /* = base */
    int segment_fd;        /* all four: high numbers, close-on-exec */
    int locks_fd;          /* record locks: opened once, never closed while attached (POSIX: a close drops all) */
    int runtime_fd;        /* directory RUNTIME/fastspool.ID */
    int spool_fd;          /* the spool directory */
    uid_t owner;           /* of the spool directory, as the file system says */
    gid_t group;
    char spool[FASTSPOOL_PATH_MAX];   /* its real path */
    char state[FASTSPOOL_PATH_MAX];   /* its state directory */
    char runtime[FASTSPOOL_PATH_MAX]; /* RUNTIME/fastspool.ID */
    struct pool *pool;                /* descriptions taken ahead (descriptions.c) */
    bool mirror;      /* this process is the mirror: it may use the reserve, and waits for no other one */
    uint64_t refused; /* when this process last waited for memory in vain, CLOCK_MONOTONIC ns; 0: never */
    uint64_t memory;  /* the configured `memory`, for the mirror that this process may start */
    enum fastspool_durability durability; /* of this process's fsyncs */
    uint64_t synced;                      /* acked: ticket of the last change that this process has synced; atomic */
};

/* Where an entry lies.  The segment can be written by the mail user and is mapped by root: so an index is cut to its
 * table's size (all are powers of two), and whatever stands in the segment, no access leaves it.  That an index means
 * something is checked where it is followed. */
#define FASTSPOOL_ENTRY_AT(type, name, at, most)                                        \
    static inline type *name(const struct fastspool *fs, uint32_t i)                    \
    {                                                                                   \
        _Static_assert(((most) & ((most)-1)) == 0, "a table's size is a power of two"); \
        return (type *)(fs->base + (at)) + (i & ((most)-1));                            \
    }
FASTSPOOL_ENTRY_AT(struct inode, inode_at, INODES_AT, INODES_MAX)
FASTSPOOL_ENTRY_AT(struct name, name_at, NAMES_AT, NAMES_MAX)
FASTSPOOL_ENTRY_AT(struct description, description_at, DESCRIPTIONS_AT, DESCRIPTIONS_MAX)
FASTSPOOL_ENTRY_AT(struct chunk, chunk_at, CHUNKS_AT, CHUNKS_MAX)
FASTSPOOL_ENTRY_AT(uint32_t, bucket_at, BUCKETS_AT, BUCKETS_MAX)
static inline char *block_at(const struct fastspool *fs, uint32_t i)
{
    return fs->base + DATA_AT + (uint64_t)(i & (CHUNKS_MAX * CHUNK_BLOCKS - 1)) * BLOCK_SIZE;
}

/** Load and store of a field that is changed outside critical sections, or read outside. */
#define LOAD(field)         __atomic_load_n(&(field), __ATOMIC_ACQUIRE)
#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)

/* ---- section.c: critical sections ------------------------------------------------------------------- */

/** A change of the store: runs under the lock, changes the segment only with SET() and section_copy(), and may
 *  read whatever it likes.  Negative: everything that it changed is taken back.  -EAGAIN after section_want():
 *  the table is grown, and the body runs again from its start.  It must be short (at most some 64 kB copied) and
 *  must not call the system. */
typedef int section_body(struct fastspool *fs, void *argument);

/** Run @body as one critical section: wholly or not at all, whoever is killed.  Returns what it returned; -EIO
 *  also when the segment is damaged or failed. */
int section_run(struct fastspool *fs, section_body *body, void *argument);

/** Record what the words around [address, address + size) hold now, for the case that the section fails.  False:
 *  the log is full (a damaged segment): the words must not be changed, and the section will fail with -EIO. */
bool section_log(struct fastspool *fs, const void *address, size_t size);

/** The same for one field, which never crosses a word: some twenty of them are an operation. */
static inline bool section_log_field(struct fastspool *fs, const void *address)
{
    struct header *header = fs->header;
    uint64_t offset = (uint64_t)((const char *)address - fs->base) & ~UINT64_C(7);
    uint32_t count = header->undo_count;

    if (count >= UNDO_MAX)
        return section_log(fs, address, 1);
    header->undo[count].offset = offset;
    header->undo[count].before = *(const uint64_t *)(fs->base + offset);
    STORE(header->undo_count, count + 1);
    /* The field may change only now: neither compiler nor processor may let it change before the count. */
    __atomic_thread_fence(__ATOMIC_RELEASE);
    return true;
}

/** Change a field of the segment inside a section. */
#define SET(fs, field, value)                                      \
    do {                                                           \
        if (section_log_field((fs), &(field)))                     \
            __atomic_store_n(&(field), (value), __ATOMIC_RELEASE); \
    } while (0)

/** Change @size bytes of the segment inside a section. */
void section_copy(struct fastspool *fs, void *to, const void *from, size_t size);

enum table_id { TABLE_INODES, TABLE_NAMES, TABLE_DESCRIPTIONS, TABLE_BUCKETS, TABLE_CHUNKS };

/** Inside a section: this table must grow first.  Returns -EAGAIN, to be returned by the body. */
int section_want(enum table_id table);

/** Read without the lock: begin, copy, and repeat from begin where retry says so.  After many repeats begin takes
 *  the lock, so that a reader always gets through.
 *      struct section_read r = SECTION_READ;
 *      do { section_read_begin(fs, &r); ... } while (section_read_retry(fs, &r)); */
struct section_read {
    uint32_t sequence;
    uint32_t tries;
    bool locked;
};
#define SECTION_READ ((struct section_read){0, 0, false})
void section_read_begin(struct fastspool *fs, struct section_read *read);
bool section_read_retry(struct fastspool *fs, struct section_read *read);
/** A number of the segment as no unfinished section left it: one whose owner died will be rolled back. */
uint64_t section_load(struct fastspool *fs, const uint64_t *word);

/** What a process must do around each critical section: the preloaded library holds signals off, and keeps the
 *  lock from a user who could stop it.  Called before the lock is taken and after it is released.  Set once,
 *  before the first attach; default: nothing. */
struct section_guard {
    void (*enter)(void);
    void (*leave)(void);
};
extern struct section_guard section_guard;

/** The segment is damaged: one line to syslog (where @what is found wrong), and -EIO. */
int section_damaged(struct fastspool *fs, const char *what);

/** Make the mutex of a new segment. */
int section_create(struct header *header);

/* ---- segment.c: the mapped file ---------------------------------------------------------------------- */

/** Make the file of an empty store in directory @runtime_fd, with its placeholders and lock file, owned by @owner;
 *  state RECOVERING. */
int segment_create(int runtime_fd, int spool_fd, const struct fastspool_config *config,
                   char error[FASTSPOOL_ERROR_MAX]);

/** Map the file in fs->runtime_fd; checks owner, mode, version, boot, PID namespace and spool. */
int segment_open(struct fastspool *fs, char error[FASTSPOOL_ERROR_MAX]);
void segment_close(struct fastspool *fs);

/** Empty the tables again: a recovery that was cut short begins anew.  Nobody else may use the segment. */
int segment_reset(struct fastspool *fs);

/** Bytes of memory that the header and the tables have taken: all but data. */
uint64_t segment_tables(const struct header *header);

/** Take memory for more entries of a table.  Outside sections.  -EAGAIN: there is no memory now, by the limit or of the
 *  system's; -ENOSPC, -ENFILE: the table is as large as it can be. */
int segment_grow(struct fastspool *fs, enum table_id table);

/** From now on the segment may hold @memory bytes. */
void segment_limit(struct header *header, uint64_t memory);

/* ---- lists.c: lists of inodes; all inside sections -------------------------------------------------------- */

#define LIST_LINK  offsetof(struct inode, list)
#define FAULT_LINK offsetof(struct inode, fault)
void lists_append(struct fastspool *fs, struct list *list, size_t which, uint32_t i);
void lists_remove(struct fastspool *fs, struct list *list, size_t which, uint32_t i);

/* ---- eviction.c: which data is in memory ------------------------------------------------------------------- */

/** Bytes of memory that a file without data takes at the most: inode, name, its share of the hash. */
#define EVICTION_FILE_MEMORY 200u

/** In a section: the inode is on the disk, data too; its data may be evicted once a checkpoint holds it. */
void eviction_join(struct fastspool *fs, uint32_t inode);
/** In a section: the inode changes: it leaves the clean list, or the cold one. */
void eviction_leave_clean(struct fastspool *fs, uint32_t inode);
/** In a section: the inode's data is to be replaced or freed: it is in memory from now on, and wanted no more. */
void eviction_leave(struct fastspool *fs, uint32_t inode);
/** In a section: the inode is opened: it is not cold, unless that is what it was brought back for. */
void eviction_reference(struct fastspool *fs, uint32_t inode);

/** In a section, where the inode is evicted: have it brought back.  Then, outside, eviction_wait(). */
void eviction_want(struct fastspool *fs, uint32_t inode);
/** In a section, the mirror alone, where the inode is evicted and not wanted: the same, before anybody wants it. */
void eviction_want_ahead(struct fastspool *fs, uint32_t inode);
/** Wait until the inode is in memory, or is another one by now.  0, or why it can't be brought back: -EIO, -ENOSPC, ...
 *  It may be evicted again at once, except while a description of it is open. */
int eviction_wait(struct fastspool *fs, uint32_t inode, uint32_t generation);

/** Outside: wait for memory, on the mirror's eviction.  0: something has changed, try again; -ENOSPC: no more waiting.
 *  @since: 0 at first, ours. */
int eviction_wait_for_space(struct fastspool *fs, uint64_t *since);
/** Outside: memory was taken from the system: is it time to evict?  Then the pager is told. */
void eviction_notice(struct fastspool *fs);
/** Where eviction begins, and how far it goes: bytes of memory in use. */
uint64_t eviction_high(const struct header *header);
uint64_t eviction_low(const struct header *header);
/** Memory that holds something: tables, and blocks that aren't free. */
uint64_t eviction_in_use(const struct header *header);

/** The mirror alone: evict what is coldest, until memory in use is @target bytes or less and at least @least blocks
 * came free, as far as there is anything that may go.  *@unready: something could not go because no checkpoint holds it
 * yet; where @least is 0, what is hot isn't taken instead.  Returns the blocks that came free. */
int64_t eviction_run(struct fastspool *fs, uint64_t target, uint64_t least, bool *unready);

/** A file that is wanted, as the pager finds it. */
struct fault {
    uint32_t inode;
    uint32_t generation;
    uint64_t ticket; /* of its last change: what is read from the database must be of it */
    uint64_t size;
    bool ahead; /* nobody has opened it yet */
};
/** The mirror alone: the first @most wanted files, in the order of their inodes; how many. */
int eviction_faults(struct fastspool *fs, struct fault *faults, size_t most);
/** In a section: is the fault as it was when it was looked at?  Only then its data may be filled in.  0 or -ESTALE. */
int eviction_check_fault(struct fastspool *fs, const struct fault *fault);
/** The mirror alone: what was filled in of the fault goes again. */
int eviction_empty_fault(struct fastspool *fs, const struct fault *fault);
/** The mirror alone: the fault's data is in memory (@error 0) or, @spilled, in its spill file; or it can't be brought
 * back
 *  (@error: a positive errno); but for the first it has no blocks.  @for_good: nobody is to try again.  Wakes who
 * waits. -ESTALE: the file has changed since, and is wanted still; or somebody has opened what was asked for ahead, in
 * vain. */
int eviction_end_fault(struct fastspool *fs, const struct fault *fault, bool spilled, int error, bool for_good);
/** In a section: a spilled file is only evicted again. */
void eviction_unspill(struct fastspool *fs, uint32_t inode);

/* ---- spill.c: what is open and not in memory ----------------------------------------------------------------- */

/** The mirror alone: an empty spill file for the fault, of its size; a descriptor for reading and writing. */
int spill_create(struct fastspool *fs, const struct fault *fault);
/** The description was opened: if its file is spilled, it reads from the spill file, whoever the process will be. */
int spill_attach(struct fastspool *fs, uint32_t description);
/** A descriptor of the spill file, for reading, the caller's; -ENOENT: the file isn't spilled (any more). */
int spill_open(struct fastspool *fs, uint32_t description);
ssize_t spill_read(struct fastspool *fs, uint32_t description, void *buffer, size_t size, uint64_t offset);
/** The mirror alone: files that nobody has open are evicted again, and spill files without an inode are removed.  How
 * many are left. */
int spill_sweep(struct fastspool *fs);

/* ---- blocks.c ----------------------------------------------------------------------------------------- */

int blocks_take(struct fastspool *fs, uint32_t *block);    /* inside a section; content undefined */
void blocks_give(struct fastspool *fs, uint32_t block);    /* inside a section */
uint64_t blocks_spare(const struct header *header);        /* how many are free */
int blocks_add_chunk(struct fastspool *fs);                /* outside: TABLE_CHUNKS grows by one; as segment_grow() */
int blocks_release_held(struct fastspool *fs);             /* outside: the quarantine is over */
int blocks_give_back(struct fastspool *fs, uint64_t keep); /* outside, the mirror alone: chunks empty for some seconds,
                                                              but for @keep bytes, go back to the system */
/** Outside, the mirror alone: the chunk that has to become empty because the tables want its memory, the one with the
 *  fewest blocks in use; CHUNKS_MAX: there is no need, or no room for them elsewhere. */
uint32_t blocks_to_vacate(const struct fastspool *fs);
int blocks_take_last(struct fastspool *fs, uint32_t chunk); /* inside: its free blocks are taken after all others */

/* ---- compaction.c: chunks that are hardly used become empty ----------------------------------------------- */

/** Outside, the mirror alone, while no commit copies: where the tables want memory and no chunk is empty, one becomes
 * so. */
int compaction_run(struct fastspool *fs);
/** The same for this chunk, whatever is wanted, as far as there is room in others. */
int compaction_vacate(struct fastspool *fs, uint32_t chunk);

/* ---- inodes.c: the table of files, their attributes, the dirty list ------------------------------------- */

/** Inside a section.  A new file (links 0, opens 0). */
int inodes_take(struct fastspool *fs, mode_t mode, uid_t uid, gid_t gid, uint32_t *inode);
/** Make the root directory of an empty store, with the attributes of the spool directory. */
int inodes_make_root(struct fastspool *fs);
/** Inside a section: free the inode if it has neither names nor descriptions. */
int inodes_drop(struct fastspool *fs, uint32_t inode);
/** Outside: free the blocks of orphans, a step at a time. */
int inodes_free_orphans(struct fastspool *fs);
/** Inside a section: the inode's record (and the blocks [from, to) of its data) must go to the disk. */
void inodes_dirty(struct fastspool *fs, uint32_t inode);
void inodes_dirty_data(struct fastspool *fs, uint32_t inode, uint32_t from, uint32_t to);
/** Inside a section: its data is on the disk; the inode is, and leaves the dirty list. */
void inodes_clean_data(struct fastspool *fs, struct inode *inode);
void inodes_clean(struct fastspool *fs, uint32_t inode);
/** st_ino of an inode. */
uint64_t inodes_number(uint32_t inode);
/** Under the lock or in a read: the attributes. */
void inodes_stat(const struct fastspool *fs, uint32_t inode, struct stat *st);
bool inodes_valid(const struct fastspool *fs, uint32_t inode);

/** Who asks: effective ids.  Groups are looked up only where they decide. */
struct credentials {
    uid_t uid;
    gid_t gid;
};
/** The effective ids, asked once; again after fastspool_credentials_changed(). */
void inodes_credentials(struct credentials *who);
/** access check: @want is a mask of R_OK, W_OK, X_OK. */
int inodes_permitted(const struct fastspool *fs, uint32_t inode, const struct credentials *who, int want);

int inodes_chmod(struct fastspool *fs, uint32_t inode, mode_t mode, const struct credentials *who); /* in a section */
int inodes_chown(struct fastspool *fs, uint32_t inode, uid_t uid, gid_t gid, const struct credentials *who);
int inodes_utimens(struct fastspool *fs, uint32_t inode, const struct timespec times[2], const struct credentials *who);

/* ---- data.c: the content of files ------------------------------------------------------------------------ */

#define DATA_STEP 65536u /* bytes of one section */
ssize_t data_read(struct fastspool *fs, uint32_t inode, uint32_t generation, void *buffer, size_t size,
                  uint64_t offset);
/** In a section; at most DATA_STEP bytes. */
int data_write(struct fastspool *fs, uint32_t inode, const void *buffer, size_t size, uint64_t offset);
/** In a section: set the size, freeing at most DATA_FREE_STEP blocks; 1: there is more to free, call again (in a
 *  section of its own; the file is that much shorter already), 0: done. */
int data_truncate(struct fastspool *fs, uint32_t inode, uint64_t size);
#define DATA_FREE_STEP 128u
/** In a section: free the file's blocks from its end down to block @to, at most @most of them; inode.size follows.
 *  1: there is more to free, 0: done. */
int data_shrink(struct fastspool *fs, uint32_t inode, uint32_t to, uint32_t most);
/** Whether one section can free all of the file. */
bool data_small(const struct inode *inode);
/** In a section: the file is empty now, whatever its size was; what is much to free is left to the orphans. */
int data_discard(struct fastspool *fs, uint32_t inode);
/** In a section: give at most @most of the file's blocks back, but not its size: what it holds is in the database.  1:
 *  there are more, 0: it has none. */
int data_empty(struct fastspool *fs, uint32_t inode, uint32_t most);
/** In a section, of an evicted file, whose data nobody can read yet: @size bytes at @offset, a multiple of BLOCK_SIZE;
 * at most DATA_STEP. */
int data_load(struct fastspool *fs, uint32_t inode, const void *buffer, size_t size, uint64_t offset);
/** In a section, of any file: its blocks (index blocks, too) that lie in chunk @chunk move to others, from block
 * *@index of the file on, some of them; 1: there may be more, go on in a section of its own, 0: none is left. */
int data_vacate(struct fastspool *fs, uint32_t inode, uint32_t chunk, uint32_t *index);
/** In a section or with the lock: block number of the file's block @index, 0: a hole. */
uint32_t data_block(const struct fastspool *fs, const struct inode *inode, uint32_t index);

/* ---- names.c: directories, paths, listings ---------------------------------------------------------------- */

/** Where a path leads. */
struct place {
    uint32_t parent;  /* inode of the directory that holds (or would hold) the last name */
    uint32_t inode;   /* 0: there is no such name */
    uint32_t entry;   /* its entry in the table of names, 0: none, or the path has no last name (".", "..") */
    const char *name; /* the last name, inside the path */
    size_t length;
    bool directory; /* the path ends in "/", "/." or "..": only a directory will do */
};
/** Under the lock or in a read.  Missing last name: 0 with place->inode 0.  @who: search permission is checked. */
int names_walk(const struct fastspool *fs, const char *path, const struct credentials *who, struct place *place);
/** In a section, after names_walk(): 0: the path leads to a file or directory; -ENOENT; -ENOTDIR: only a directory will
 *  do, and it is none; -EIO: the segment is damaged. */
int names_must_exist(struct fastspool *fs, const struct place *place);
int names_add(struct fastspool *fs, uint32_t parent, const char *name, size_t length,
              uint32_t inode);                          /* in a section */
int names_remove(struct fastspool *fs, uint32_t entry); /* in a section */
/** The mirror alone: make the hash larger ahead of those who will add names. */
int names_split_ahead(struct fastspool *fs);
/** The path of directory @inode, relative to the spool, into @path; its length.  -ENOENT: it has no name any more. */
int names_path(const struct fastspool *fs, uint32_t inode, char *path, size_t size);
/** Under the lock or in a read: as fastspool_list(). */
ssize_t names_list(const struct fastspool *fs, uint32_t parent, uint64_t after, struct fastspool_entry *entries,
                   size_t size);
/** The text of entry @entry into @text (256 bytes), its length returned. */
int names_text(const struct fastspool *fs, uint32_t entry, char *text);
/** In a section: the entry before or behind this one in its directory, in the order of birth; 0: there is none. */
uint32_t names_beside(const struct fastspool *fs, uint32_t entry, bool behind);

/* ---- descriptions.c ----------------------------------------------------------------------------------------- */

/** Take a description: its placeholder is open, with its identity in the kernel's offset and its liveness lock.
 *  @fd: the placeholder's descriptor (a high number, owned by the pool). */
int descriptions_take(struct fastspool *fs, uint32_t *description, int *fd);
/** In a section: it now is an open file. */
int descriptions_open(struct fastspool *fs, uint32_t description, uint32_t inode, int flags);
/** The process has closed its last descriptor of it.  Where no fork, exec or message can have copied it, it goes
 *  back to the pool; else the kernel is asked whether anybody holds it, and the last one frees it. */
int descriptions_close(struct fastspool *fs, uint32_t description);
/** Every description that is open in this process may from now on be held by another one too. */
void descriptions_shared(struct fastspool *fs);
/** The child of a fork: close what the pool has open. */
void descriptions_after_fork_child(struct fastspool *fs);
/** Does the kernel descriptor @fd stand for a description of this spool?  Its number, or 0. */
uint32_t descriptions_identify(struct fastspool *fs, int fd);
/** The pool's own descriptor of a description that this process opened, -1: none (inherited). */
int descriptions_fd(struct fastspool *fs, uint32_t description);
/** The descriptor of the spill file that an open description reads from: the pool's from now on; -1: none. */
int descriptions_set_spill(struct fastspool *fs, uint32_t description, int fd);
int descriptions_spill(struct fastspool *fs, uint32_t description);
/** Is @fd one of the pool's own descriptors? */
bool descriptions_owns(struct fastspool *fs, int fd);
/** Free what the dead had open.  The mirror calls it once a second, recovery once. */
int descriptions_reap(struct fastspool *fs);
/** Read inode and generation of an open description; -EBADF. */
int descriptions_file(const struct fastspool *fs, uint32_t description, uint32_t *inode, uint32_t *generation);
void descriptions_pool_close(struct fastspool *fs);

/* ---- files.c: the public calls on files, built from the rooms above ------------------------------------------- */

/** As fastspool_open(); @description was taken by descriptions_take() and is given back where it fails. */
int files_open(struct fastspool *fs, const char *path, int flags, mode_t mode, uint32_t description);

/* ---- directories.c: the public calls on directories, built from the rooms above -------------------------------- */

/** In a section: a new file or directory at @place, where names_walk() found none.  It is @who's, but the group of a
 *  set-group-ID directory is inherited.  -EACCES: @who may not change the names there; -EMLINK: no more directories fit
 *  there; or as inodes_take() and names_add(). */
int directories_make(struct fastspool *fs, const struct place *place, mode_t mode, const struct credentials *who,
                     uint32_t *inode);
/** Make the directory @path in the store, and those above it that are missing, with these attributes: the spool's
 *  real directory has it (left from before), and something is to be made in it. */
int directories_adopt(struct fastspool *fs, const char *path, const struct stat *attributes);

/* ---- locks.c: record locks ------------------------------------------------------------------------------------ */

int locks_control(struct fastspool *fs, uint32_t description, int command, struct flock *lock);
/** A descriptor of this inode is being closed: POSIX drops the process's locks on it. */
void locks_drop(struct fastspool *fs, uint32_t inode);
/** The child of a fork: it holds none of its parent's. */
void locks_after_fork_child(void);

/* ---- commit.c: tickets, waiters, and the capture that the mirror writes ----------------------------------------- */

/** Bounds of what may be left unwritten: an fsync waits beyond, also one that would return at once. */
#define COMMIT_BYTES_MAX (UINT64_C(64) << 20)
#define COMMIT_FILES_MAX 16384u
#define COMMIT_AGE_MAX   10u /* flush intervals, and at least 1 s */

/** Wait until change number @ticket is durable; @timeout ns, 0 = for ever.  Starts a mirror where none lives. */
int commit_wait(struct fastspool *fs, uint64_t ticket, uint64_t timeout);
/** Commits can't even be tried: @error (positive) is what every fsync that isn't durable returns until one succeeds. */
void commit_fails(struct fastspool *fs, int error);
/** fsync, as the process's durability says, of a file whose last change is @ticket, or of a @directory. */
int commit_sync(struct fastspool *fs, uint64_t ticket, bool directory);
/** So long did a share of @percent of the commits take at most, ns; 0: there was none. */
uint64_t commit_percentile(const struct fastspool *fs, unsigned percent);

/** A dirty inode as it was at the instant of the capture. */
struct captured {
    uint32_t inode;
    struct inode record; /* links == 0: delete it on the disk */
    uint32_t first;      /* block numbers of the file's blocks [first, first + count), pinned until commit_end(): */
    uint32_t count;      /*   the dirty ones and a neighbour on each side; 0: a hole, or behind the end */
    uint32_t *blocks;
    size_t names; /* names of the inode: */
    struct captured_name {
        uint32_t parent;
        uint8_t length;
        char text[255];
    } * name;
};
struct capture {
    uint64_t ticket; /* what becomes durable with it */
    size_t count;
    struct captured *file;       /* oldest change first */
    struct captured_name *names; /* what file[].name and file[].blocks point into */
    uint32_t *blocks;
};
/** The mirror alone: everything dirty, at one instant.  0 with count 0: nothing is dirty. */
int commit_capture(struct fastspool *fs, struct capture *capture);
/** The mirror alone: @error 0: it is on the disk; else a positive errno, and all of it stays dirty.  Wakes the
 *  waiters, frees the capture. */
int commit_end(struct fastspool *fs, struct capture *capture, int error, uint64_t duration);
/** A new mirror: what a dead one had begun is dirty as before. */
int commit_reset(struct fastspool *fs);

/* ---- attach.c: finding, making and leaving a store; starting the mirror -------------------------------------------
 */

/** Open the descriptors and map the segment, without creating, starting or waiting: for the mirror itself.
 *  -ENOENT: there is no store. */
int attach_open(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                char error[FASTSPOOL_ERROR_MAX]);
/** As attach_open(), making an empty RECOVERING store where there is none that is usable. */
int attach_create(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                  char error[FASTSPOOL_ERROR_MAX]);
/** Start the mirror unless one lives or another process is starting it. */
int attach_start_mirror(struct fastspool *fs);
/** For whoever waits on the mirror: sleep while *@event is @value, 100 ms at the most; where no mirror lives start one,
 *  and remind it (@wanted is its futex).  @lived: when one was last seen, ns; first: now.  -EIO: none comes up. */
int attach_wait_for_mirror(struct fastspool *fs, uint32_t *event, uint32_t value, uint32_t *wanted, uint64_t *lived);
/** Is a mirror alive?  By flock of its lock file, never by pid. */
bool attach_mirror_lives(struct fastspool *fs);

#endif
