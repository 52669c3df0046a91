-- A configuration with every kind of hook. Whatever they do, bytes go through unchanged; `run` reloads it again and
-- again and asks its listener "control" for figures.
local ps = require "penstock"

local function env(name) return os.getenv("SOAK_" .. name) end

local ECHO, DEAD = env "ECHO", env "DEAD"
local counts = ps.store("soak", { items = 1000 })
local bucket = ps.bucket("soak", { rate = 1e6, burst = 1e6 })
local accepted = ps.counter("soak_accepted", { "listener" })
local ready = ps.signal()

ps.on_start(function()
    ps.sleep(0.01)
    ready:set(true)
end)
ps.every(0.2, function() counts:incr("ticks", 1, 0) end, { once_per = "host" })

-- ---- hooks that all listeners have ----

local function accept(conn)
    counts:incr("accepted", 1, 0)
    accepted:inc(1, conn.listener)
    bucket:take(conn.client.key)
    conn:after(ps.random() * 3, function() conn:tag("age", conn.age) end)
end

local function close(_, info)
    if info.reason == "script" then counts:incr("failed", 1, 0) end
    counts:incr("closed", 1, 0)
    if ps.random(4) == 1 then ps.sleep(ps.random() * 0.2) end
end

-- ---- how destinations are found ----

local ways = {
    function() return ECHO end,
    function() return { DEAD, ECHO } end,
    function() return DEAD end, -- then `failed` finds it
    function()
        ps.sleep(ps.random() * 0.05)
        return ECHO
    end,
    function()
        return ps.race(function() return ready:wait(1) and ECHO end, function()
            ps.sleep(2)
            return ECHO
        end)
    end,
    function()
        local _, late = ps.timeout(0.01, ps.sleep, 5)
        return late == "timeout" and ECHO or DEAD
    end,
    function()
        local a, b = ps.all(function() return "127.0.0.1" end, function()
            ps.sleep(0.01)
            return ECHO:match ":(%d+)$"
        end)
        return a .. ":" .. b
    end,
}

local function connect() return ways[ps.random(#ways)]() end

local function failed(_, dest)
    if dest == DEAD then return ECHO end
end

local function connected(conn)
    conn:tag("server", conn.upstream.addr)
    ps.spawn(function()
        ps.sleep(ps.random() * 2)
        conn:tag("spawned", true)
    end)
end

-- ---- filters that change nothing ----

local loops = {
    function(rd, wr)
        for part in function() return rd:read() end do wr:write(part) end
    end,
    function(rd, wr)
        for part in function() return rd:buffer(4096) end do wr:write(part) end
    end,
    function(rd, wr)
        for line, eol in rd:lines() do wr:write(line, eol) end
    end,
    function(rd, wr)
        for part in function() return rd:exactly(1000) end do wr:write(part) end
    end,
    function(rd, wr)
        wr:pass(rd, 10000)
        wr:write(rd:read() or "")
    end,
    function(rd, wr)
        while true do
            local text, why = rd:upto("e", 100)
            if text then
                wr:write(text, "e")
            elseif why == "too_long" then
                wr:write(rd:exactly(50))
            else
                return
            end
        end
    end,
    function() end,
    function(rd, wr)
        for part in function() return rd:read(1000) end do
            if ps.random(50) == 1 then ps.sleep(0.01) end
            rd:unread(part)
            wr:write(rd:read())
        end
    end,
}

-- What it has, it gives at once: for clients that wait for an answer before they end.
local function prompt_filter(_, rd, wr) return loops[ps.random(2)](rd, wr) end

local function filter(_, rd, wr) return loops[ps.random(#loops)](rd, wr) end

local function data(conn, dir, chunk)
    local n = ps.random(100)
    if n == 4 then conn:capture(env "CAPTURE", { side = "both", max = "2M", first = "200K" }) end
    if n == 1 then ps.sleep(0.01) end
    if n == 2 then conn:limit { [dir] = "10M" } end
    if n == 3 then return ps.PASS end
    if n > 50 then return chunk end
end

-- ---- protocols of the script's own ----

local function handshake(_, client, upstream)
    local line, eol = client:line(256)
    if line then upstream:write(line, eol) end
end

-- The script is the forwarder: a socket of its own, two tasks.
local function relay(_, client)
    local upstream = ps.tcp.connect(ECHO, { timeout = 10 })
    if not upstream then error "the echo server does not answer" end
    local up = ps.spawn(function()
        for part in function() return client:read() end do upstream:write(part) end
        upstream:finish()
    end)
    for part in function() return upstream:read() end do client:write(part) end
    up:wait()
    upstream:close()
end

local function control(_, client)
    collectgarbage()
    client:write(("heap=%d accepted=%d closed=%d failed=%d ticks=%d\n"):format(collectgarbage "count" * 1024,
        counts:get "accepted" or 0, counts:get "closed" or 0, counts:get "failed" or 0, counts:get "ticks" or 0))
end

-- A client that resets while the server does not read leaves bytes that wait that long to be taken.
local timeouts = { half_closed = 5 }

local function listen(name, hooks)
    if hooks.filter or hooks.data or hooks.handshake then
        hooks.connect, hooks.failed, hooks.connected = connect, failed, connected
    end
    hooks.accept, hooks.close = accept, close
    ps.listen { name = name, bind = env(name:upper()), timeouts = timeouts, policy = hooks }
end

listen("filter", { filter = { up = filter, down = filter } })
listen("data", { data = data })
listen("handshake", { handshake = handshake })
listen("serve", { serve = relay })
ps.listen {
    name = "pipeline", bind = env "PIPELINE", to = ECHO, timeouts = timeouts, policy = {
        { accept = accept, close = close, filter = { up = filter } },
        { filter = { up = filter, down = filter } },
    },
}
require "transport" (env, { accept = accept, close = close, filter = prompt_filter }, timeouts)
ps.listen { name = "control", bind = env "CONTROL", policy = { serve = control } }
