/* The allocator of a VM: LuaJIT's own, which is faster than malloc() for small blocks, with a store
 * of large blocks in front. LuaJIT maps and unmaps every block of 128 KiB and more; for a data hook
 * that is two such strings for each chunk of a bulk transfer, and the page faults cost more than
 * the script.
 *
 * It also keeps the cap: a script that passes HEAP_CAP_BYTES gets "not enough memory", an error
 * like any other. Only while Lua runs protected, since elsewhere that error would end the process.
 */
#include "script_priv.h"

enum { LARGE_BYTES = 32 * 1024, KEPT_BYTES_MAX = 8 << 20 };

/* Four sizes to each doubling: what a read gives varies, and a block is only found again by its
 * size. */
static size_t rounded(size_t n)
{
    if (n < LARGE_BYTES)
        return n;
    size_t step = (size_t)1 << (61 - __builtin_clzll(n - 1));
    return (n + step - 1) & ~(step - 1);
}

/* Takes a kept block of exactly `cap` bytes, NULL without one. The newest is likely still in the
 * cache. */
static void *take(struct heap *h, size_t cap)
{
    for (size_t i = h->n_kept; i-- > 0;) {
        if (h->kept[i].cap != cap)
            continue;
        void *block = h->kept[i].block;
        h->n_kept--;
        for (; i < h->n_kept; i++)
            h->kept[i] = h->kept[i + 1];
        h->kept_bytes -= cap;
        return block;
    }
    return NULL;
}

static void give_back(struct heap *h, size_t i)
{
    h->kept_bytes -= h->kept[i].cap;
    h->next(h->next_arg, h->kept[i].block, h->kept[i].cap, 0);
    h->n_kept--;
    for (; i < h->n_kept; i++)
        h->kept[i] = h->kept[i + 1];
}

static void keep(struct heap *h, void *block, size_t cap)
{
    if (cap > KEPT_BYTES_MAX / 8) {
        h->next(h->next_arg, block, cap, 0);
        return;
    }
    while (h->n_kept == HEAP_KEPT || (h->n_kept && h->kept_bytes + cap > KEPT_BYTES_MAX))
        give_back(h, 0); /* the oldest: sizes change */
    h->kept[h->n_kept].block = block;
    h->kept[h->n_kept++].cap = cap;
    h->kept_bytes += cap;
}

/* A large block is always as long as rounded(its size). */
static void *get(struct heap *h, void *block, size_t old_size, size_t new_size)
{
    if (old_size < LARGE_BYTES && new_size < LARGE_BYTES)
        return h->next(h->next_arg, block, old_size, new_size);
    size_t old_cap = rounded(old_size), new_cap = rounded(new_size);
    if (!new_size) {
        keep(h, block, old_cap);
        return NULL;
    }
    if (!block) {
        void *kept = take(h, new_cap);
        return kept ? kept : h->next(h->next_arg, NULL, 0, new_cap);
    }
    return old_cap == new_cap ? block : h->next(h->next_arg, block, old_cap, new_cap);
}

/* lua_Alloc. */
static void *allocate(void *arg, void *block, size_t old_size, size_t new_size)
{
    struct heap *h = arg;
    ptrdiff_t more = (ptrdiff_t)new_size - (ptrdiff_t)old_size;
    if (more > 0 && h->guarded && h->used_bytes + more > HEAP_CAP_BYTES) {
        h->refused = true;
        return NULL;
    }
    void *got = get(h, block, old_size, new_size);
    if (got || !new_size)
        h->used_bytes += more;
    return got;
}

lua_State *heap_new_state(struct heap *h)
{
    lua_State *L = luaL_newstate();
    if (!L)
        return NULL;
    h->next = lua_getallocf(L, &h->next_arg);
    lua_setallocf(L, allocate, h);
    return L;
}

void heap_close_state(struct heap *h, lua_State *L)
{
    while (h->n_kept)
        give_back(h, h->n_kept - 1);
    lua_setallocf(L, h->next,
                  h->next_arg); /* lua_close() unmaps the arena only when it is its own */
    lua_close(L);
    h->used_bytes = 0;
}

void heap_tell(struct heap *h, struct count *total)
{
    count_add(total, (uint64_t)(h->used_bytes - h->told_bytes));
    h->told_bytes = h->used_bytes;
}
