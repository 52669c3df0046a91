/* Files are compared by what stat() tells of them. */
#include "penstock/proxy/watch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LOOK_MS = 500 };

struct watched {
    char *path;
    struct stat st; /* zeroed when it was not there */
};

/* Takes the present state; true when it was another. */
static bool look(struct watched *file)
{
    struct stat st;
    if (stat(file->path, &st))
        memset(&st, 0, sizeof st);
    bool same = st.st_ino == file->st.st_ino && st.st_dev == file->st.st_dev &&
                st.st_size == file->st.st_size && st.st_mtim.tv_sec == file->st.st_mtim.tv_sec &&
                st.st_mtim.tv_nsec == file->st.st_mtim.tv_nsec;
    file->st = st;
    return !same;
}

static void on_look(uv_timer_t *timer)
{
    struct watch *w = timer->data;
    bool changed = false;
    for (size_t i = 0; i < w->n; i++)
        changed |= look(&w->files[i]);
    bool settled = w->dirty && !changed;
    w->dirty = changed;
    if (settled)
        w->on_change(w);
}

void watch_init(struct watch *w, uv_loop_t *loop, void (*on_change)(struct watch *w))
{
    *w = (struct watch){.on_change = on_change};
    uv_timer_init(loop, &w->timer);
    w->timer.data = w;
}

/* What is known of a file that was watched before: a change since then is still to be told. */
static const struct watched *find(const struct watched *files, size_t n, const char *path)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(files[i].path, path) == 0)
            return &files[i];
    return NULL;
}

static void free_files(struct watched *files, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(files[i].path);
    free(files);
}

void watch_set(struct watch *w, char *const *paths, size_t n)
{
    struct watched *before = w->files;
    size_t n_before = w->n;
    w->files = calloc(n + 1, sizeof *w->files);
    w->n = 0;
    for (size_t i = 0; w->files && i < n; i++) {
        struct watched *file = &w->files[w->n];
        const struct watched *known = find(before, n_before, paths[i]);
        file->path = strdup(paths[i]);
        if (!file->path)
            continue;
        if (known)
            file->st = known->st;
        else
            look(file);
        w->n++;
    }
    free_files(before, n_before);
    if (w->n && !uv_is_active((uv_handle_t *)&w->timer))
        uv_timer_start(&w->timer, on_look, LOOK_MS, LOOK_MS);
}

void watch_deinit(struct watch *w)
{
    free_files(w->files, w->n);
    w->files = NULL;
    w->n = 0;
}
