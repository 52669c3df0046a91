-- Reload: another version comes into force without a connection being lost, or the present one stays.
local e2e = require "tests.e2e.support.case"
local tls = require "tests.e2e.support.tls"
local case, sys = e2e.case, e2e.sys

local function write(t, text, ...)
  return t:file("penstock.lua", 'local ps = require "penstock"\n' .. text:format(...))
end

-- A version whose connections carry the tag v.
local function version(t, v, server, bind)
  return write(t, [[
    ps.listen { name = "l", bind = %q, to = %q, policy = {
      accept = function(conn) conn:tag("v", %q) end,
      close = function(conn) conn:tag("closed_by", %q) end } }
  ]], bind or "127.0.0.1:0", server.address, v, v)
end

-- Sends HUP and waits for the answer: a pattern with one capture.
local function reload(p, pattern)
  local from = #p.err + 1
  p:signal "HUP"
  return p:log(pattern or "version (%d+) is in force", from)
end

local function finish(client, upstream)
  client:finish()
  upstream:finish()
  client:expect_eof()
end

describe("reload by HUP:", function()
  case("new connections get the new version, old ones end on theirs", function(t)
    local server = t:listen()
    local p = t:penstock { "run", version(t, "one", server) }
    local old, old_upstream = t:expect_echo(p, server)
    version(t, "two", server)
    assert.equal("2", reload(p))
    local new, new_upstream = t:expect_echo(p, server)
    old:send "still"
    old_upstream:expect "still"
    finish(new, new_upstream)
    p:expect_end({ v = "two", closed_by = "two", reason = "eof" }, 1)
    finish(old, old_upstream)
    p:expect_end({ v = "one", closed_by = "one", reason = "eof" }, 2)
  end)

  case("a hook that waits goes on in the old version", function(t)
    local server = t:listen()
    local p = t:penstock { "run", write(t, [[
      local go = ps.signal()
      ps.listen { bind = "127.0.0.1:0", to = %q, policy = { accept = function(conn)
        if conn.seq == 1 then conn.log.info("waits") ps.sleep(0.3) conn:tag("old", true) end end } }
    ]], server.address) }
    local client = t:connect(p)
    p:log "(waits)"
    version(t, "new", server)
    reload(p)
    finish(client, t:accept(server))
    p:expect_end { old = "true" }
  end)

  case("a new version that does not load changes nothing, and the log says why", function(t)
    local server = t:listen()
    t:expect_error "HUP: version 1 stays in force"
    local p = t:penstock { "run", version(t, "one", server) }
    write(t, "ps.listen { bind = 5 }")
    assert.equal("1", reload(p, "HUP: version (%d+) stays in force: [^\n]*penstock.lua:2: ps.listen: bind is a number"))
    p:log "stack (traceback):"
    finish(t:expect_echo(p, server))
    p:expect_end { v = "one" }
    version(t, "two", server)
    reload(p)
    finish(t:expect_echo(p, server))
    p:expect_end({ v = "two" }, 2)
  end)

  case("an error at run time while it loads leaves the old version, too", function(t)
    local server = t:listen()
    t:expect_error "version 1 stays in force"
    local p = t:penstock { "--workers", "2", "run", version(t, "one", server) }
    write(t, 'ps.listen { bind = "127.0.0.1:0" } error "no"')
    reload(p, "version (1) stays in force: [^\n]*penstock.lua:2: no")
    finish(t:expect_echo(p, server))
    p:expect_end { v = "one" }
  end)

  case("listeners are kept by address, added, and removed", function(t)
    local server = t:listen()
    local gone = t:folder() .. "/gone"
    local p = t:penstock { "run", write(t, [[
      ps.listen { name = "kept", bind = "127.0.0.1:0", to = %q, limits = { per_ip = 2 } }
      ps.listen { name = "gone", bind = "unix:%s", to = %q }
    ]], server.address, gone, server.address) }
    local kept = p.address
    local first, on_first = t:connect(kept), t:accept(server)
    local old, on_old = t:connect("unix:" .. gone), t:accept(server)
    local added = t:folder() .. "/added"
    write(t, [[
      ps.listen { name = "added", bind = "unix:%s", to = %q }
      ps.listen { name = "renamed", bind = "127.0.0.1:0", to = %q, limits = { per_ip = 2 },
        policy = { accept = function(conn) conn:tag("seq", conn.seq) end } }
    ]], added, server.address, server.address)
    p:signal "HUP"
    p:log("listening on (unix:" .. added:gsub("%p", "%%%0") .. ") %->")
    p:log "listeners added 1, kept 1, removed (1)"
    finish(t:connect("unix:" .. added), t:accept(server))
    p:expect_end { listener = "added" }
    assert.is_nil(t:try_connect("unix:" .. gone))
    assert.is_nil(sys.read_file(gone))
    old:send "lives"
    on_old:expect "lives"
    -- The count of its listener and the limit of the client know of the first connection.
    local second, on_second = t:connect(kept), t:accept(server)
    t:connect(kept):expect_reset()
    finish(second, on_second)
    p:expect_end({ listener = "renamed", seq = "2" }, 2)
    finish(first, on_first)
    finish(old, on_old)
    p:expect_end({ listener = "gone" }, 4)
  end)

  case("when an address cannot be opened nothing has changed", function(t)
    local server, taken = t:listen(), t:listen()
    t:expect_error "cannot listen on"
    local p = t:penstock { "run", version(t, "one", server) }
    local other = t:folder() .. "/other"
    write(t, [[
      ps.listen { bind = "unix:%s", to = "h:1" }
      ps.listen { bind = %q, to = "h:1" }
    ]], other, taken.address)
    reload(p, "version (1) stays in force: cannot listen on")
    assert.is_nil(t:try_connect("unix:" .. other))
    finish(t:expect_echo(p, server))
    p:expect_end { v = "one" }
  end)

  case("the rate of the version that stays in force stays, too", function(t)
    local server, taken = t:listen(), t:listen()
    local text = [[
      ps.listen { bind = "127.0.0.1:0", to = %q, limits = { rate = %d } }
      ps.listen { bind = %q, to = "h:1" }
    ]]
    t:expect_error "cannot listen on"
    local p = t:penstock { "run", write(t, text, server.address, 10, "127.0.0.1:0") }
    write(t, text, server.address, 100000, taken.address)
    reload(p, "version (1) stays in force: cannot listen on")
    local start = sys.now()
    for _ = 1, 22 do t:connect(p) end
    for n = 1, 22 do
      t:accept(server)
      local allowed = 10 + 10 * (sys.now() - start) + 1
      assert.is_true(n <= allowed, ("%d clients where %.1f are allowed"):format(n, allowed))
    end
  end)

  case("clients in the backlog of a removed listener are served", function(t)
    local server = t:listen()
    local p = t:penstock { "run", version(t, "one", server) }
    t:expect_echo(p, server)
    write(t, 'ps.listen { bind = "127.0.0.2:0", to = %q }', server.address)
    p:freeze() -- so that they are in the backlog when it comes
    local clients = {}
    for i = 1, 10 do clients[i] = t:connect(p):send "late" end
    p:signal "HUP"
    p:thaw()
    p:log "version (2) is in force"
    for _ = 1, 10 do t:accept(server):expect("late"):send("served"):finish() end
    for i = 1, 10 do clients[i]:expect "served" end
  end)

  case("limits, times and targets of a kept listener are the new ones", function(t)
    local server, other = t:listen(), t:listen()
    local p = t:penstock { "run", version(t, "one", server) }
    write(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q, limits = { per_ip = 1, rate = 1000 }, timeouts = { life = 0.2 } }
    ]], other.address)
    reload(p)
    t:connect(p)
    t:accept(other)
    t:connect(p):expect_reset()
    p:expect_end { reason = "timeout", detail = "life" }
  end)

  case("required modules are loaded anew", function(t)
    local server = t:listen()
    t:file("word.lua", 'return "one"')
    local p = t:penstock { "run", write(t, [[
      local word = require "word"
      ps.listen { bind = "127.0.0.1:0", to = %q, policy = { accept = function(conn) conn:tag("word", word) end } }
    ]], server.address) }
    t:file("word.lua", 'return "two"')
    reload(p)
    finish(t:expect_echo(p, server))
    p:expect_end { word = "two" }
  end)

  case("a -p policy is loaded anew for the listeners of the command line", function(t)
    local server = t:listen()
    local path = write(t, 'return { accept = function(conn) conn:tag("v", 1) end }')
    local p = t:penstock { "-p", path, "127.0.0.1:0", server.address }
    write(t, 'return { accept = function(conn) conn:tag("v", 2) end }')
    reload(p, "listeners added 0, kept (1), removed 0")
    finish(t:expect_echo(p, server))
    p:expect_end { v = "2" }
  end)

  case("without a file there is nothing to load, which is said", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address }
    reload(p, "HUP: (nothing) to load again")
    t:expect_echo(p, server)
  end)

  case("each of several in a row is obeyed, one after the other", function(t)
    local server = t:listen()
    local p = t:penstock { "--workers", "2", "run", version(t, "one", server) }
    for n = 2, 6 do
      p:signal "HUP"
      assert.equal(tostring(n), p:log("version (" .. n .. ") is in force"))
    end
  end)

  case("options that are read at the start only are named when they change", function(t)
    local server = t:listen()
    local p = t:penstock { "run", version(t, "one", server) }
    write(t, [[
      ps.options { max_conns = 7, log = "debug" }
      ps.listen { bind = "127.0.0.1:0", to = %q, policy = { accept = function(conn) conn.log.debug("seen") end } }
    ]], server.address)
    reload(p, "ps.options: (max_conns) has changed, which takes effect at the next start")
    p:log "version (2)"
    t:expect_echo(p, server)
    p:log "debug .*(seen)"
  end)

  case("tasks of the script begin when their version comes into force, and end with it", function(t)
    local server = t:listen()
    local text = [[
      ps.listen { bind = "127.0.0.1:0", to = %q }
      ps.spawn(function() while true do ps.log.info("tick %s") ps.sleep(0.02) end end)
    ]]
    local p = t:penstock { "run", write(t, text, server.address, "one") }
    p:log "(tick one)"
    write(t, text, server.address, "two")
    reload(p)
    p:log "(tick two)"
    local from = #p.err + 1
    p:log("tick two.*tick two.*(tick two)", from)
    assert.is_nil(p.err:find("tick one", from, true))
  end)

  case("TERM ends connections of every version within the drain time", function(t)
    local server = t:listen()
    local p = t:penstock { "--drain-timeout", "100ms", "run", version(t, "one", server) }
    local old = t:expect_echo(p, server)
    reload(p)
    local new = t:expect_echo(p, server)
    p:signal "TERM"
    old:expect_reset()
    new:expect_reset()
    p:expect_exit(0)
  end)

  case("at most four versions are kept: the oldest one's connections are ended", function(t)
    local server = t:listen()
    local p = t:penstock { "run", version(t, "1", server) }
    local clients = {}
    for n = 1, 4 do
      clients[n] = t:expect_echo(p, server)
      version(t, tostring(n + 1), server)
      reload(p)
    end
    clients[1]:expect_reset()
    p:expect_end { v = "1", reason = "shutdown", detail = "reload", closed_by = "1" }
    for n = 2, 4 do clients[n]:send "x" end
    t:expect_echo(p, server)
    assert.equal(1, #p:access_lines())
  end)

  case("more of them with --max-versions, and any number where there is no policy", function(t)
    local server = t:listen()
    local p = t:penstock { "--max-versions", "6", "run", version(t, "1", server) }
    local clients = {}
    for n = 1, 6 do
      clients[n] = { t:expect_echo(p, server) }
      reload(p)
    end
    clients[1][1]:expect_reset()
    local cert = tls.certificate(t:folder(), "a.lab")
    local plain = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "--access-log", "off", "127.0.0.1:0",
      server.address }
    local client = tls.client(t:connect(plain))
    client:handshake()
    local upstream = t:accept(server)
    for _ = 1, 12 do reload(plain) end
    client:send "still"
    upstream:expect "still"
    for n = 2, 6 do
      clients[n][1]:send "too"
      clients[n][2]:expect "too"
    end
  end)

  case("fewer of them once --max-versions is lower", function(t)
    local server = t:listen()
    local p = t:penstock { "run", write(t, 'ps.options { max_versions = 8 }\n' ..
      'ps.listen { bind = "127.0.0.1:0", to = "%s", policy = { close = function() end } }', server.address) }
    local clients = {}
    for n = 1, 5 do
      clients[n] = { t:expect_echo(p, server) }
      reload(p)
    end
    write(t, 'ps.options { max_versions = 2 }\n' ..
      'ps.listen { bind = "127.0.0.1:0", to = "%s", policy = { close = function() end } }', server.address)
    reload(p)
    for n = 1, 4 do clients[n][1]:expect_reset() end
    clients[5][1]:send "still"
    clients[5][2]:expect "still"
    t:expect_echo(p, server)
  end)

  case("200 reloads under churn lose no connection and leak nothing", function(t)
    local server = t:listen()
    local p = t:penstock { "--workers", "2", "--access-log", "off", "run", version(t, "x", server) }
    local reloads = 0
    local function churn(n)
      for _ = 1, n do
        p:signal "HUP"
        reloads = reloads + 1
        for _ = 1, 3 do
          local client, upstream = t:expect_echo(p, server)
          finish(client, upstream)
          upstream:close()
          client:close()
        end
        p:log(("version (%d) is in force"):format(reloads + 1))
      end
    end
    churn(40)
    local memory, descriptors = p:memory_kb(), p:descriptors()
    churn(160)
    assert.is_truthy(sys.wait_until(function() return p:descriptors() <= descriptors end), "descriptors are left open")
    if not p:sanitizer() then
      assert.is_true(p:memory_kb() < memory + 4096, ("%d kB became %d kB"):format(memory, p:memory_kb()))
    end
  end)
end)

describe("--watch:", function()
  case("loads again when the file or a module of it has changed", function(t)
    local server = t:listen()
    t:file("word.lua", 'return "one"')
    local text = [[
      local word = require "word"
      ps.listen { bind = "127.0.0.1:0", to = %q, policy = { accept = function(conn) conn:tag("word", word) end } }
    ]]
    local p = t:penstock { "--watch", "run", write(t, text, server.address) }
    t:file("word.lua", 'return "second"')
    p:log "version (2) is in force"
    finish(t:expect_echo(p, server))
    p:expect_end { word = "second" }
    write(t, text .. "-- changed", server.address)
    p:log "version (3) is in force"
  end)

  case("a file that failed to load is watched until it is mended", function(t)
    local server = t:listen()
    t:expect_error "%-%-watch: version 1 stays in force"
    local p = t:penstock { "--watch", "run", version(t, "one", server) }
    write(t, "oops")
    p:log "%-%-watch: version (1) stays in force"
    version(t, "two", server)
    p:log "version (2) is in force"
  end)
end)
