/* ps.counter, ps.gauge, ps.histogram: a userdata with a pointer to a metric, which outlives the VM.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "lib_shared.h"
#include "penstock/base/err.h"

/* The types of userdata, by enum metric_type. */
static const char *const types[] = {
#define X(name, word) [METRIC_##name] = "ps." word,
    METRIC_TYPES(X)
#undef X
};

struct call {
    enum metric_type type;
    const char *method;
    const char *first;   /* name of the first argument */
    double otherwise;    /* it, when it is missing; NAN: it must not be */
    double least;        /* the least it may be */
    const char *example; /* without labels */
    void (*run)(struct metric *m, const struct metric_label *labels, double n);
};

/* Raises what is wrong, and the right call. */
static int wrong(lua_State *L, const struct call *c, const struct metric *m, const char *what)
{
    const struct metric_info *info = metric_info(m);
    lua_pushfstring(L, "%s:%s(%s", metric_type_name(info->type), c->method, c->first);
    for (size_t i = 0; i < info->n_labels; i++) {
        lua_pushfstring(L, ", %s", info->labels[i]);
        lua_concat(L, 2);
    }
    return luaL_error(L, "%s): %s", lua_tostring(L, -1), what);
}

static struct metric_label label_at(lua_State *L, int arg, const struct call *c,
                                    const struct metric *m)
{
    struct metric_label label = {NULL, 0};
    if (lua_isboolean(L, arg)) {
        label.bytes = lua_toboolean(L, arg) ? "true" : "false";
        label.n = strlen(label.bytes);
    } else if (lua_isstring(L, arg)) {
        label.bytes = lua_tolstring(L, arg, &label.n);
    } else {
        wrong(L, c, m, "each label is a string, number or boolean");
    }
    return label;
}

static int run(lua_State *L, const struct call *c)
{
    struct metric *m = *(struct metric **)lib_self(L, types[c->type], c->example);
    size_t n_labels = metric_info(m)->n_labels;
    struct metric_label labels[METRICS_LABELS_MAX];
    double n = lua_isnoneornil(L, 2)           ? c->otherwise
               : lua_type(L, 2) == LUA_TNUMBER ? lua_tonumber(L, 2)
                                               : NAN;
    if (isnan(n))
        return wrong(L, c, m, "the first argument is a number");
    if (n < c->least)
        return wrong(L, c, m, "a counter only goes up");
    if (lua_gettop(L) > 2 + (int)n_labels)
        return wrong(L, c, m, "these are more labels than it has");
    for (size_t i = 0; i < n_labels; i++)
        labels[i] = label_at(L, 3 + (int)i, c, m);
    c->run(m, labels, n);
    return 0;
}

static int counter_inc(lua_State *L)
{
    static const struct call call = {METRIC_COUNTER,   "inc",     "n", 1, 0,
                                     "counter:inc(n)", metric_add};
    return run(L, &call);
}

static int gauge_inc(lua_State *L)
{
    static const struct call call = {METRIC_GAUGE, "inc",          "n",       1,
                                     -HUGE_VAL,    "gauge:inc(n)", metric_add};
    return run(L, &call);
}

static int gauge_set(lua_State *L)
{
    static const struct call call = {METRIC_GAUGE,       "set",     "value", NAN, -HUGE_VAL,
                                     "gauge:set(value)", metric_set};
    return run(L, &call);
}

static int histogram_observe(lua_State *L)
{
    static const struct call call = {
        METRIC_HISTOGRAM,           "observe",     "value", NAN, -HUGE_VAL,
        "histogram:observe(value)", metric_observe};
    return run(L, &call);
}

/* ---- declarations ---- */

/* The text at the top, popped; its owner keeps it alive. NULL when it is none. */
static const char *pop_text(lua_State *L)
{
    size_t len;
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
    bool plain = text && strlen(text) == len;
    lua_pop(L, 1);
    return plain ? text : NULL;
}

/* Returns what is wrong with the list of labels at 3, NULL when nothing is. */
static const char *read_labels(lua_State *L, const char **labels, struct metric_info *info)
{
    info->n_labels = lua_objlen(L, 3);
    info->labels = labels;
    if (info->n_labels > METRICS_LABELS_MAX)
        return "these are too many labels";
    for (size_t i = 0; i < info->n_labels; i++) {
        lua_rawgeti(L, 3, (int)i + 1);
        labels[i] = pop_text(L);
        if (!labels[i])
            return "the labels are a list of names: { \"method\", \"status\" }";
    }
    return NULL;
}

static const char *read_bounds(lua_State *L, double *bounds, struct metric_info *info)
{
    info->n_bounds = lua_objlen(L, 5);
    info->bounds = bounds;
    if (info->n_bounds > METRICS_BOUNDS_MAX)
        return "these are too many buckets";
    for (size_t i = 0; i < info->n_bounds; i++) {
        lua_rawgeti(L, 5, (int)i + 1);
        bounds[i] = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : NAN;
        lua_pop(L, 1);
    }
    return NULL;
}

static const char *read_info(lua_State *L, const char **labels, double *bounds,
                             struct metric_info *info)
{
    lua_pushvalue(L, 2);
    info->name = pop_text(L);
    lua_pushvalue(L, 4);
    info->help = pop_text(L);
    if (!info->name || !info->help)
        return "name and help are texts without zero bytes";
    const char *what = read_labels(L, labels, info);
    return what ? what : read_bounds(L, bounds, info);
}

/* metric(type, name, labels, help, bounds) -> metric, or nil and why */
static int core_metric(lua_State *L)
{
    static const char *const names[] = {
#define X(name, word) [METRIC_##name] = word,
        METRIC_TYPES(X)
#undef X
            NULL};
    struct metric_info info = {.type = (enum metric_type)luaL_checkoption(L, 1, NULL, names)};
    const char *labels[METRICS_LABELS_MAX];
    double bounds[METRICS_BOUNDS_MAX];
    char why[256] = "";
    const char *what = read_info(L, labels, bounds, &info);
    if (what)
        return lib_fail(L, what);
    struct metric **m = lua_newuserdata(L, sizeof(struct metric *));
    struct metrics *all = shared_metrics(vm_of(L)->shared);
    int err = metrics_declare(all, &info, m, why, sizeof why);
    if (err)
        return lib_fail(L, why[0] ? why : err_text(err));
    luaL_getmetatable(L, types[info.type]);
    lua_setmetatable(L, -2);
    return 1;
}

/* metrics() -> text */
static int core_metrics(lua_State *L)
{
    struct metrics *all = shared_metrics(vm_of(L)->shared);
    size_t cap = 0, n = metrics_text(all, NULL, 0);
    char *text = NULL;
    while (n > cap) { /* there may be more meanwhile */
        cap = n + n / 8;
        text = lua_newuserdata(L, cap);
        n = metrics_text(all, text, cap);
    }
    lua_pushlstring(L, text ? text : "", n);
    return 1;
}

void lib_metrics_open(lua_State *L, struct vm *vm)
{
    static const luaL_Reg methods[][3] = {
        [METRIC_COUNTER] = {{"inc", counter_inc}, {NULL, NULL}},
        [METRIC_GAUGE] = {{"inc", gauge_inc}, {"set", gauge_set}, {NULL, NULL}},
        [METRIC_HISTOGRAM] = {{"observe", histogram_observe}, {NULL, NULL}},
    };
    static const luaL_Reg functions[] = {
        {"metric", core_metric}, {"metrics", core_metrics}, {NULL, NULL}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        lib_type(L, vm, types[i], methods[i]);
        lua_pop(L, 1);
    }
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
}
