-- Pools: who is chosen, who is left out and comes back, and on whom connections count, over all workers.
local e2e = require "tests.e2e.support.case"
local peers = require "tests.e2e.support.peers"
local case, case_with, sys = e2e.case, peers.case_with, e2e.sys

-- Real servers in a process of their own: each says its name and then echoes. Returns { a = "127.0.0.1:port", … }.
local function backends(t, ...)
  local lines, names = { 'local ps = require "penstock"' }, { ... }
  for _, name in ipairs(names) do
    lines[#lines + 1] = ([[
      ps.listen { name = %q, bind = "127.0.0.1:0", policy = { serve = function(conn, client)
        client:write(%q, "\n")
        client:flush()
        while true do
          local bytes = client:read()
          if not bytes then return end
          client:write(bytes)
          client:flush()
        end
      end } }]]):format(name, name)
  end
  local p = t:penstock { "run", t:file("backends.lua", table.concat(lines, "\n")) }
  local map = {}
  for i, name in ipairs(names) do map[name] = p.addresses[i] end
  return map
end

-- One listener that answers questions about the pool: "state a", "conns a", "drain a", "up a".
local control = [[
  ps.listen { name = "control", bind = "127.0.0.1:0", policy = { serve = function(conn, client)
    local verb, name = client:line():match "(%S+) (%S+)"
    local server = pool:server(name)
    if verb == "drain" then server:drain() end
    if verb == "up" then server:up() end
    client:write(verb == "conns" and tostring(server.conns) or server.state)
  end } }
]]

local function write(t, pool, listener)
  local text = 'local ps = require "penstock"\nlocal pool = ps.pool { name = "pool", %s }\n%s\n%s'
  listener = listener or 'ps.listen { name = "l", bind = "127.0.0.1:0", to = pool }'
  return t:file("pool.lua", text:format(pool, listener, control))
end

local function start(t, args, ...)
  local argv = {}
  for _, word in ipairs(args) do argv[#argv + 1] = word end
  argv[#argv + 1], argv[#argv + 2] = "run", write(t, ...)
  return t:penstock(argv)
end

local function ask(t, p, question)
  local client = t:connect(p.addresses[2])
  client:send(question .. "\n")
  client:finish()
  local answer = client:read_all()
  client:close()
  return answer
end

local function becomes(t, p, question, answer)
  if not sys.wait_until(function() return ask(t, p, question) == answer end) then
    error(("%s is %s, not %s"):format(question, ask(t, p, question), answer), 2)
  end
end

-- A client that stays; returns it and whom it has reached.
local function reach(t, p, first)
  local client = t:connect(p)
  if first then client:send(first) end
  return client, client:read(2):sub(1, 1)
end

-- Whom n clients reach, one after the other.
local function count(t, p, n)
  local counts = {}
  for _ = 1, n do
    local client, name = reach(t, p)
    counts[name] = (counts[name] or 0) + 1
    client:close()
  end
  return counts
end

describe("a pool", function()
  case("round robin goes by turns and weights exactly, over all workers", function(t)
    local b = backends(t, "a", "b", "c")
    local p = start(t, { "--workers", "2" }, ("servers = { { %q, weight = 3 }, %q, %q }"):format(b.a, b.b, b.c))
    assert.same({ a = 30, b = 10, c = 10 }, count(t, p, 50))
  end)

  case("random goes by weights, and --seed repeats it", function(t)
    local b = backends(t, "a", "b", "c")
    local text = ('algo = "random", servers = { { %q, weight = 2 , name = "a" }, { %q, name = "b" }, ' ..
      '{ %q, name = "c" } }'):format(b.a, b.b, b.c)
    local counts = count(t, start(t, { "--seed", "7" }, text), 200)
    assert.is_true(counts.a > 70 and counts.a < 130)
    assert.is_true(counts.b > 25 and counts.b < 75)
    assert.is_true(counts.c > 25 and counts.c < 75)
    assert.same(counts, count(t, start(t, { "--seed", "7" }, text), 200))
  end)

  case("least_conn evens out the connections that are held, over all workers", function(t)
    local b = backends(t, "a", "b", "c")
    local p = start(t, { "--workers", "2" }, ('algo = "least_conn", servers = { { %q, name = "a" }, ' ..
      '{ %q, name = "b" }, { %q, name = "c" } }'):format(b.a, b.b, b.c))
    local held, counts = { a = {}, b = {}, c = {} }, {}
    for _ = 1, 12 do
      local client, name = reach(t, p)
      table.insert(held[name], client)
    end
    for name, list in pairs(held) do
      counts[name] = #list
      assert.equal("4", ask(t, p, "conns " .. name))
    end
    assert.same({ a = 4, b = 4, c = 4 }, counts)
    for i = 1, 2 do held.b[i]:close() end
    becomes(t, p, "conns b", "2")
    for _ = 1, 2 do
      local _, name = reach(t, p)
      assert.equal("b", name)
    end
  end)

  case("hash keeps a key with its server, and moves only the share of one that goes", function(t)
    local b = backends(t, "a", "b", "c")
    local listener = [[ps.listen { name = "l", bind = "127.0.0.1:0", policy = {
      connect = function(conn) return pool:pick((conn:peek_line())) end } }]]
    local all = ('algo = "hash", servers = { { %q, name = "a" }, { %q, name = "b" }, { %q, name = "c" } }')
      :format(b.a, b.b, b.c)
    local p = start(t, { "--workers", "2" }, all, listener)
    local owner, counts = {}, { a = 0, b = 0, c = 0 }
    for i = 1, 60 do
      local client, name = reach(t, p, "key" .. i .. "\n")
      owner[i], counts[name] = name, counts[name] + 1
      client:close()
    end
    for _, n in pairs(counts) do assert.is_true(n > 5) end
    ask(t, p, "drain c")
    for i = 1, 60 do
      local client, name = reach(t, p, "key" .. i .. "\n")
      assert.not_equal("c", name)
      if owner[i] ~= "c" then assert.equal(owner[i], name) end
      client:close()
    end
    ask(t, p, "up c")
    local client, name = reach(t, p, "key1\n")
    assert.equal(owner[1], name)
    client:close()
  end)

  case("fails over from servers that refuse", function(t)
    local b, dead = backends(t, "a"), t:refusing()
    local p = start(t, {}, ("servers = { %q, %q }"):format(dead.address, b.a))
    assert.same({ a = 4 }, count(t, p, 4))
  end)

  case("a drained server keeps its connections and gets no new ones", function(t)
    local b = backends(t, "a", "b")
    local p = start(t, { "--workers", "2" },
      ('servers = { { %q, name = "a" }, { %q, name = "b" } }'):format(b.a, b.b))
    local one, name = reach(t, p)
    local other = reach(t, p)
    local old = name == "b" and one or other
    assert.equal("drained", ask(t, p, "drain b"))
    assert.same({ a = 6 }, count(t, p, 6))
    old:send "x"
    old:expect "x"
    assert.equal("1", ask(t, p, "conns b"))
    assert.equal("up", ask(t, p, "up b"))
    assert.same({ a = 3, b = 3 }, count(t, p, 6))
  end)

  case("without a server that may be used turns clients away, and pick says so", function(t)
    local b = backends(t, "a")
    local p = start(t, {}, ('servers = { { %q, name = "a" } }'):format(b.a), [[
      ps.listen { name = "l", bind = "127.0.0.1:0", to = pool, policy = { connect = function(conn)
        local server, why = pool:pick()
        conn:tag("pick", server and server.name or why)
      end } }]])
    ask(t, p, "drain a")
    t:connect(p):expect_eof()
    p:expect_end({ reason = "denied", detail = "unavailable", pick = "unavailable", listener = "l" }, 2)
  end)

  case("a server that is no more after a reload is forgotten, the others keep their state", function(t)
    local b = backends(t, "a", "b", "c")
    local p = start(t, {}, ('servers = { { %q, name = "a" }, { %q, name = "b" } }'):format(b.a, b.b))
    ask(t, p, "drain b")
    write(t, ('servers = { { %q, name = "b" }, { %q, name = "c" } }'):format(b.b, b.c))
    local from = #p.err + 1
    p:signal "HUP"
    p:log("version (%d+) is in force", from)
    assert.same({ c = 4 }, count(t, p, 4))
    assert.equal("drained", ask(t, p, "state b"))
  end)

  case("a socket of ps.tcp counts while it is open", function(t)
    local b = backends(t, "a")
    local p = start(t, {}, ('servers = { { %q, name = "a" } }'):format(b.a), [[
      ps.listen { name = "l", bind = "127.0.0.1:0", policy = { serve = function(conn, client)
        local s = ps.tcp.connect(pool:pick())
        local before = pool:server("a").conns
        s:close()
        client:write(before, " ", pool:server(1).conns)
      end } }]])
    assert.equal("1 0", t:connect(p):read_all())
  end)
end)

describe("checks", function()
  case("that are under way do not keep it from ending cleanly", function(t)
    local silent = t:listen()
    local p = start(t, {}, ('servers = { %q }, check = { every = 0.05, timeout = 5, expect = "hello" }'):format(
      silent.address))
    t:accept(silent)
    p:stop()
  end)

  case("take a dead server out and bring it back", function(t)
    local b, held = backends(t, "a"), t:refusing() -- so that nobody else gets the port meanwhile
    local address = held.address
    held:close()
    local listener = t:listen(address)
    local p = start(t, { "--workers", "2" }, ([[servers = { { %q, name = "a" }, { %q, name = "b" } },
      check = { every = "20ms", fall = 2, rise = 2 }]]):format(b.a, address))
    assert.equal("up", ask(t, p, "state b"))
    listener:close()
    p:log "pool pool: b is (down: refused)"
    assert.equal("down", ask(t, p, "state b"))
    assert.same({ a = 6 }, count(t, p, 6))
    t:listen(address)
    p:log "pool pool: b is up (again)"
    becomes(t, p, "state b", "up")
  end)

  case("may send and expect an answer", function(t)
    local b = backends(t, "a", "b")
    local p = start(t, {}, ([[servers = { { %q, name = "a" }, { %q, name = "b" } },
      check = { every = "20ms", fall = 1, send = "PING", expect = "a\nPING" }]]):format(b.a, b.b))
    p:log "b is (down: another answer than expected)"
    assert.equal("up", ask(t, p, "state a"))
    assert.same({ a = 4 }, count(t, p, 4))
  end)

  case("find a server that accepts and says nothing", function(t)
    local silent = t:listen()
    local p = start(t, {}, ([[servers = { { %q, name = "s" } },
      check = { every = "20ms", fall = 2, timeout = "50ms", expect = "x" }]]):format(silent.address))
    p:log "s is (down: [%a :]*timeout)"
  end)

  case("that a reload takes away leave no server down", function(t)
    local dead = t:refusing()
    local servers = ('servers = { { %q, name = "d" } }'):format(dead.address)
    local p = start(t, {}, servers .. ', check = { every = "20ms", fall = 1 }')
    p:log "d is (down)"
    write(t, servers)
    p:signal "HUP"
    p:log "version (2) is in force"
    becomes(t, p, "state d", "up")
  end)
end)

describe("ejection", function()
  case("takes out a server after failed dials in a row, for a time", function(t)
    local b, dead = backends(t, "a"), t:refusing()
    local p = start(t, { "--workers", "2" }, ([[servers = { { %q, name = "d" }, { %q, name = "a" } },
      eject = { fails = 2, time = "300ms" }]]):format(dead.address, b.a))
    assert.same({ a = 4 }, count(t, p, 4))
    p:log "pool pool: d is (ejected)"
    local address = dead.address
    becomes(t, p, "state d", "up")
    dead:close()
    local back = t:listen(address)
    local one, other = t:connect(p), t:connect(p)
    local upstream = t:accept(back)
    one:send "x"
    other:send "x"
    upstream:expect "x"
    assert.equal("1", ask(t, p, "conns d"))
  end)

  case("leaves the last resort: with all ejected they are tried", function(t)
    local dead = t:refusing()
    local servers = 'servers = { { %q, name = "d" } }, eject = { fails = 1, time = 60 }'
    local p = start(t, {}, servers:format(dead.address))
    for i = 1, 2 do
      t:connect(p):expect_reset()
      p:expect_end({ reason = "refused", listener = "l" }, i)
    end
    assert.equal("ejected", ask(t, p, "state d"))
    assert.equal("0", ask(t, p, "conns d"))
  end)
end)

local function start_socks(t)
  local port = peers.free_port(t)
  local address = "127.0.0.1:" .. port
  peers.wait_for_listener(t, address, t:spawn { "microsocks", "-i", "127.0.0.1", "-p", tostring(port) })
  return address
end

describe("a pool of proxies", function()
  -- The chain of example 5.
  local function chain(destination)
    return ([[ps.listen { name = "l", bind = "127.0.0.1:0", policy = { connect = function(conn)
      local list = {}
      for exit in pool:each(conn.client.key) do list[#list + 1] = { %q, via = { exit }, timeout = 4 } end
      return list
    end, failed = function(conn, dest, err) conn:tag("failed", err) end } }]]):format(destination)
  end

  case_with("microsocks", "counts on the proxy of the way, and ejects the one that is dead", function(t)
    local b, socks, dead = backends(t, "a"), start_socks(t), t:refusing()
    local p = start(t, {}, ([[algo = "least_conn", servers = { { "socks5://u:p@%s", name = "dead" },
      { "socks5://%s", name = "good" } }, check = { every = 60 }, eject = { fails = 1 }]]):format(dead.address, socks),
      chain(b.a))
    for _ = 1, 3 do
      local _, name = reach(t, p)
      assert.equal("a", name)
    end
    assert.equal("3", ask(t, p, "conns good"))
    assert.equal("0", ask(t, p, "conns dead"))
    assert.equal("ejected", ask(t, p, "state dead"))
  end)

  case_with("microsocks", "does not blame the proxy for a destination that refuses", function(t)
    local socks, dead = start_socks(t), t:refusing()
    local p = start(t, {}, ('servers = { { "socks5://%s", name = "good" } }, eject = { fails = 1 }'):format(socks),
      chain(dead.address))
    t:connect(p):expect_reset()
    p:expect_end({ listener = "l", failed = "refused" }, 1)
    assert.equal("up", ask(t, p, "state good"))
    assert.equal("0", ask(t, p, "conns good"))
  end)
end)
