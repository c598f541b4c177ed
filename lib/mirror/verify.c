/* SPDX-License-Identifier: MIT
 *
 * Verification of what lies on the disk.
 *
 * The happy path: a child opens the database, as of one instant, and reads the journal behind it, then looks whether
 * the mirror has made a checkpoint meanwhile: that moves batches from the one to the other, and lets files of the
 * journal be used again.  If it hasn't, journal and database belong together.  Then the database is read, which may
 * take long. Last, every file that is evicted in memory must be in it, with its generation and size: nothing else holds
 * its data.
 *
 * Failure modes:
 *   - A checkpoint while the journal was read, or two while the database was: all is read again.  After TRIES_ALONE
 *     the look is registered with LMDB, so that the mirror keeps its pages; after TRIES in all it is said that it is
 *     too busy.
 *   - The database is so damaged that reading it kills the child (LMDB believes its pages): it is told what it died
 *     of, and where.  The journal is then read by another child, as if there were no database.
 *   - An evicted file changes, or goes, after the snapshot was taken: it isn't compared.
 *   - The mail user has written the database so that LMDB does what he wants: the child has no rights but his, no
 *     terminal, and nothing that it leaves in the shared memory is believed.
 */
#include "mirror/verify.h"

#include "base/atomic.h"
#include "base/error.h"
#include "base/findings.h"
#include "base/places.h"
#include "base/rights.h"
#include "mirror/database_view.h"
#include "mirror/verify_inside.h"
#include "store/layout.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FOUND_MOST  200u /* sentences of the child's */
#define TRIES       8
#define TRIES_ALONE 4

/* As exit statuses of the child: a sanitizer, or whatever else ends it, has others. */
enum outcome { DONE = 100, AGAIN, DEAD };

/* Shared with the child, as its findings are.  It may write there what it likes. */
struct shared {
    struct verify_place place;
    struct verified verified;
    uint64_t durable; /* the last durable batch, as memory knew before; 0: there is no memory */
};

struct look {
    const char *state;
    const struct fastspool *fs, *snapshot;
    struct findings *findings; /* the child's */
    struct findings *all;
    struct shared *shared;
    bool no_database; /* it can't be read: only the journal is */
    bool registered;
};

/* ---- in the child ---- */

/* Evicted in the snapshot, and nothing has happened to it since: so it has been evicted all the time. */
static bool evicted_still(const struct look *look, uint32_t i)
{
    const struct inode *then = inode_at(look->snapshot, i), *now = inode_at(look->fs, i);
    unsigned flags = LOAD(now->flags);

    return (flags & INODE_USED) && (flags & INODE_EVICTED) && LOAD(now->generation) == then->generation &&
           LOAD(now->ticket) == then->ticket;
}

static void check_evicted(const struct look *look, const struct verify_inodes *inodes)
{
    static const struct verify_inode none;

    for (uint32_t i = 1; look->snapshot && i < look->snapshot->header->tables.inodes.used && i < INODES_MAX; i++) {
        const struct inode *inode = inode_at(look->snapshot, i);
        const struct verify_inode *held = i < inodes->count ? &inodes->inode[i] : &none;
        if ((inode->flags & (INODE_USED | INODE_EVICTED)) != (INODE_USED | INODE_EVICTED))
            continue;
        look->shared->verified.evicted++;
        bool same = held->kind == VERIFY_FILE && held->generation == inode->generation && held->size == inode->size;
        if (!same && evicted_still(look, i))
            findings_add(look->findings,
                         "database: inode %u is evicted, generation %u, %llu bytes, and the database holds %s, "
                         "generation %u, %llu bytes",
                         i, inode->generation, (unsigned long long)inode->size,
                         held->kind == VERIFY_FILE ? "a file"
                         : held->kind              ? "a directory"
                                                   : "none of it",
                         held->generation, (unsigned long long)held->size);
    }
}

/* -1 in *@directory: there is none.  False: it can't be opened. */
static bool open_journal(const struct look *look, int *directory)
{
    char path[PLACES_PATH_MAX];

    places_in_state(look->state, PLACES_JOURNAL, path);
    *directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*directory >= 0 || errno == ENOENT)
        return true;
    findings_add(look->findings, "journal: it can't be opened: %s", strerrordesc_np(errno));
    return false;
}

/* The journal behind the database @view, NULL: there is none.  A batch that is just being written looks torn, and may
 * be whole an instant later: what is wrong is wrong three times. */
static void read_journal(const struct look *look, const struct database_view *view)
{
    struct shared *shared = look->shared;
    const struct verify_known known = {view, view ? view->meta.batch : 0, shared->durable};
    int directory;

    if (!open_journal(look, &directory))
        return;
    uint32_t before = look->findings->count;
    for (int tries = 0; tries == 0 || (tries < 3 && look->findings->count > before); tries++) {
        look->findings->count = before;
        verify_journal(directory, &known, &shared->verified, look->findings);
    }
    if (directory >= 0)
        close(directory);
}

static enum outcome read_both(const struct look *look, struct database_view *view)
{
    struct verify_inodes inodes = {0};

    read_journal(look, view);
    if (!database_view_last(view))
        return AGAIN;
    int result = verify_database(view, &look->shared->place, &inodes, &look->shared->verified, look->findings);
    if (result == -ENOMEM)
        findings_add(look->findings, "database: there is no memory to verify it");
    if (result == 0)
        check_evicted(look, &inodes);
    free(inodes.inode);
    return look->registered || database_view_whole(view) ? DONE : AGAIN;
}

/* Database and journal, once. */
static enum outcome read_disk(const struct look *look)
{
    char path[PLACES_PATH_MAX], why[ERROR_MAX] = "";
    struct database_view view;
    uint64_t evicted = look->snapshot ? look->snapshot->header->residency.evicted : 0;
    struct stat st;

    places_in_state(look->state, PLACES_DATABASE, path);
    int result = stat(path, &st) < 0 && errno == ENOENT ? -ENOENT : 1;
    if (result > 0 && !look->no_database)
        result = database_view_open(&view, path, look->registered, why);
    if (result == 0) {
        enum outcome outcome = read_both(look, &view);
        database_view_close(&view);
        return outcome;
    }
    if (result < 0 && why[0])
        findings_add(look->findings, "database: %s", why);
    else if (result < 0 && evicted)
        findings_add(look->findings, "database: it is missing, and %llu files are evicted to it",
                     (unsigned long long)evicted);
    read_journal(look, NULL);
    return DONE;
}

/* ---- in the parent ---- */

static void tell_death(const struct look *look, int status)
{
    const struct verify_place place = look->shared->place;
    char where[96] = "before its tables";

    if (place.table != VERIFY_NO_TABLE)
        snprintf(where, sizeof(where), "in the table \"%s\", behind inode %u, slice %u", verify_table_name(place.table),
                 place.inode, place.slice);
    findings_add(look->all, "database: a page is damaged %s: whoever reads it dies (%s)", where,
                 WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "by itself");
}

static enum outcome in_child(const struct look *look)
{
    int status;
    pid_t parent = getpid(), child = fork();

    if (child == 0) {
        findings_free(look->all, look->all->most); /* shared, too: the child must have no way to it */
        int result = rights_confine(parent, -1);
        if (result < 0)
            findings_add(look->findings, "the disk was not read: %s", strerrordesc_np(-result));
        _exit(result < 0 ? DONE : read_disk(look));
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        findings_add(look->all, "the disk was not read: %s", strerrordesc_np(errno));
        return DONE;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == AGAIN)
        return AGAIN; /* what was found in what doesn't belong together is nothing */
    findings_join(look->all, look->findings, FOUND_MOST);
    if (WIFEXITED(status) && WEXITSTATUS(status) == DONE)
        return DONE;
    tell_death(look, status);
    return DEAD;
}

static void verify_shared(struct look *look)
{
    uint64_t durable = look->shared->durable;
    enum outcome outcome = AGAIN;

    for (int tries = 0; tries < TRIES && outcome == AGAIN; tries++) {
        look->findings->count = 0;
        look->registered = tries >= TRIES_ALONE;
        *look->shared = (struct shared){.durable = durable};
        outcome = in_child(look);
    }
    if (outcome == DEAD) {
        look->no_database = true;
        look->findings->count = 0;
        in_child(look);
    } else if (outcome == AGAIN) {
        findings_add(look->all, "the disk was not verified: the mirror makes checkpoints faster than it can be read");
    }
}

int verify_disk(const char *state, const struct fastspool *fs, const struct fastspool *snapshot,
                struct verified *verified, struct findings *findings)
{
    struct look look = {
        .state = state, .fs = fs, .snapshot = snapshot, .findings = findings_new(FOUND_MOST), .all = findings};

    if (!look.findings)
        return -ENOMEM;
    look.shared = mmap(NULL, sizeof(*look.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int result = look.shared == MAP_FAILED ? -errno : 0;
    if (result == 0) {
        look.shared->durable = snapshot ? snapshot->header->journal.durable : 0;
        verify_shared(&look);
        *verified = look.shared->verified;
        munmap(look.shared, sizeof(*look.shared));
    }
    findings_free(look.findings, FOUND_MOST);
    return result;
}
