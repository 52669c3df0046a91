-- Listeners that go other ways to the echo server: by a pool, in TLS on either side, by PROXY headers, through a proxy.
local ps = require "penstock"

return function(env, hooks, timeouts)
    local ECHO = env "ECHO"

    local function listen(name, options)
        options.name, options.bind, options.timeouts = name, env(name:upper()), timeouts
        options.policy = options.policy or { accept = hooks.accept, close = hooks.close }
        ps.listen(options)
    end

    -- One that is there, one that comes and goes, and one that never is.
    listen("pool", { to = ps.pool {
        name = "soak", algo = "random", check = { every = 0.3, fall = 2 }, eject = { fails = 3, time = 1 },
        servers = {
            { ECHO, name = "steady" }, { ECHO, name = "other", weight = 2 }, env "AWAY", { env "DEAD", weight = 0.5 },
        },
    } })

    local server = { cert = env "PAIR" }
    local client = { ca = env "CA", name = env "NAME" }
    listen("inner", { tls = server, to = ECHO })
    listen("tls", { tls = server, to = { "tls://" .. env "INNER", tls = client } }) -- in TLS on both sides
    listen("tls_filter", { tls = server, to = ECHO, policy = {
        accept = hooks.accept, close = hooks.close, filter = { up = hooks.filter, down = hooks.filter },
    } })
    listen("wrapped", { to = { "tls://" .. env "INNER", tls = client } })

    listen("proxied", { to = ECHO, accept_proxy = { from = { "127.0.0.1" }, others = "deny" } })
    listen("outward", { to = { env "PROXIED", proxy = "v2" } })

    listen("socks", { policy = {
        { accept = hooks.accept, close = hooks.close }, require "penstock.policy.socks" { allow = { "127.0.0.1:*" } },
    } })
    listen("chained", { to = { ECHO, via = { "socks5://" .. env "SOCKS" } } })
end
