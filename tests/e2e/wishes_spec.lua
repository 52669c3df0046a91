-- What people have asked other forwarders for (docs/wishes.md), as far as no other spec shows it already.
local e2e = require "tests.e2e.support.case"
local dns = require "tests.e2e.support.dns"
local scripted = require "tests.e2e.support.scripted"
local case, sys = e2e.case, e2e.sys

local function reload(p, pattern)
  local from = #p.err + 1
  p:signal "HUP"
  return p:log(pattern, from)
end

describe("hooks:", function()
  case("those of every kind work beside each other and beside the relay, in one connection", function(t)
    local server, dead = t:listen(), t:refusing()
    local p = scripted.start(t, ([[
      local function note(conn, what) conn.log.info("HOOK %%s", what) end
      return { {
        accept = function(conn) note(conn, "accept") end,
        connect = function(conn) note(conn, "connect") return %q end,
        failed = function(conn) note(conn, "failed") return %q end,
        connected = function(conn) note(conn, "connected") end,
        handshake = function(conn, client, upstream)
          note(conn, "handshake")
          upstream:write(client:line(), "!\n")
        end,
        data = function(conn, dir, chunk) note(conn, "data " .. dir) return chunk:upper() end,
        close = function(conn) note(conn, "close") end,
      }, {
        filter = {
          up = function(conn, rd, wr) wr:write("<", (rd:line()), ">") note(conn, "filter up") end,
          down = function(conn, rd, wr) wr:write("(", (rd:line()), ")") note(conn, "filter down") end,
        },
      } }]]):format(dead.address, server.address), { target = "-" })
    local client, upstream = t:pair(p, server)
    client:send "hello\n"
    upstream:expect "hello!\n"
    client:send "one\n"
    upstream:expect "<ONE>"
    upstream:send "two\n"
    client:expect "(TWO)"
    client:finish()
    upstream:expect_eof()
    upstream:finish()
    client:expect_eof()
    p:stop()
    local seen = {}
    for hook in p.err:gmatch "HOOK ([^\n]+)" do seen[#seen + 1] = hook end
    assert.same({ "accept", "connect", "failed", "connected", "handshake", "data up", "filter up", "filter down",
      "data down", "close" }, seen)
  end)

  case("a data hook is not called again for a direction that it has passed", function(t)
    local p, server = scripted.start(t, [[
      local calls = { up = 0, down = 0 }
      return {
        data = function(conn, dir, chunk)
          calls[dir] = calls[dir] + 1
          if dir == "up" then return ps.PASS end
        end,
        close = function(conn) conn:tag("ups", calls.up) conn:tag("downs", calls.down) end,
      }]])
    local client, upstream = t:pair(p, server)
    for _ = 1, 5 do
      client:send "question"
      upstream:expect("question"):send "answer"
      client:expect "answer"
    end
    client:finish()
    upstream:expect_eof()
    upstream:finish()
    client:expect_eof()
    p:expect_end { reason = "eof", ups = "1", downs = "5" }
  end)
end)

describe("waits:", function()
  case("the handshake hook and filters of both directions may wait", function(t)
    local p, server = scripted.start(t, [[
      local function slowly(conn, rd, wr)
        for line, eol in rd:lines() do
          ps.sleep(0.02)
          wr:write("[", line, "]", eol)
        end
      end
      return {
        handshake = function(conn, client, upstream) ps.sleep(0.02) upstream:write("from the hook\n") end,
        filter = { up = slowly, down = slowly },
      }]])
    local client, upstream = t:pair(p, server)
    client:send("a\nb"):finish()
    upstream:expect("from the hook\n[a]\n[b]"):expect_eof()
    upstream:send("c\n"):finish()
    client:expect("[c]\n"):expect_eof()
  end)

  case("a client that aborts while a down filter waits leaves no word in the log but its access line", function(t)
    local p, server = scripted.start(t, [[
      return { filter = { down = function(conn) conn.log.info("WAITING") ps.sleep(3600) end } }]])
    local client = t:connect(p)
    local upstream = t:accept(server)
    p:log "(WAITING)"
    local from = #p.err + 1
    client:reset()
    upstream:expect_reset()
    p:expect_end { reason = "reset", side = "client" }
    for line in p.err:sub(from):gmatch "[^\n]+" do assert.is_truthy(line:find(" access ", 1, true), line) end
  end)

  case("what both directions write after their waits never comes out of the other one", function(t)
    local p, server = scripted.start(t, [[
      return { data = function(conn, dir, chunk)
        ps.sleep(ps.random() / 500)
        return (chunk:gsub("%d", dir == "up" and "u" or "d"))
      end }]], { args = { "--seed", "5" } })
    local client, upstream = t:pair(p, server)
    for _ = 1, 50 do
      client:send "1"
      upstream:send "2"
    end
    upstream:expect(("u"):rep(50))
    client:expect(("d"):rep(50))
  end)
end)

describe("names:", function()
  -- A name server that reads one host's address from a file, anew on HUP.
  local function name_server(t, address, ttl_s)
    local path = t:file("names", address .. " moved.test\n")
    return dns.start(t, { "--addn-hosts=" .. path, "--local-ttl=" .. ttl_s })
  end

  local function move(t, names, address)
    t:file("names", address .. " moved.test\n")
    local from = #names.err + 1
    names:signal "HUP"
    assert(names:wait_for("err", "read [^\n]*names", from), names.err)
  end

  -- Listeners at two addresses, with one port.
  local function two_places(t)
    for _ = 1, 50 do
      local old = t:listen "127.0.0.3:0"
      local ok, new = pcall(t.listen, t, "127.0.0.4:" .. old.port)
      if ok then return old, new end
      old:close()
    end
    error "no port is free on both addresses"
  end

  local function reaches(t, p, listener)
    local client, upstream = t:expect_echo(p, listener)
    client:close()
    upstream:close()
  end

  case("a connect hook may return one, and while it is looked up others are served", function(t)
    local server = t:listen()
    local silent = t:deaf_datagrams()
    local p = scripted.start(t, ([[
      return { connect = function(conn) return conn.seq == 1 and "slow.test:80" or "localhost:%d" end }]]
    ):format(server.port), { target = "-", args = { "--resolver", silent.address, "--connect-timeout", "1h" } })
    local waiting = t:connect(p)
    for _ = 1, 3 do reaches(t, p, server) end
    waiting:reset()
    p:expect_end({ id = 1, reason = "reset", side = "client" }, 4)
  end)

  case("one that has moved is found at its new address once its time to live is over", function(t)
    local old, new = two_places(t)
    local names = name_server(t, "127.0.0.3", 1)
    local p = t:penstock { "--resolver", names.address, "127.0.0.1:0", "moved.test:" .. old.port }
    reaches(t, p, old)
    move(t, names, "127.0.0.4")
    sys.wait_until(function()
      local client, there = t:connect(p), nil
      sys.wait_until(function()
        there = old:try_accept(0) and "old" or new:try_accept(0) and "new"
        return there
      end)
      client:reset()
      return there == "new"
    end)
    reaches(t, p, new)
  end)

  case("one that has moved is asked for anew after a failed connect, whatever its time to live", function(t)
    local old, new = two_places(t)
    local names = name_server(t, "127.0.0.3", 3600)
    local p = t:penstock { "--resolver", names.address, "127.0.0.1:0", "moved.test:" .. old.port }
    reaches(t, p, old)
    move(t, names, "127.0.0.4")
    reaches(t, p, old) -- the answer is believed
    old:close()
    t:connect(p):expect_reset()
    p:expect_end({ reason = "refused" }, 3)
    reaches(t, p, new)
  end)
end)

describe("a store", function()
  case("keeps what is in it over a reload, and over one that fails", function(t)
    t:expect_error "version 2 stays in force"
    local server = t:listen()
    local function write(extra)
      return t:file("penstock.lua", ([[
        local ps = require "penstock"
        local store = ps.store "counts"
        %s
        ps.listen { bind = "127.0.0.1:0", to = %q, policy = {
          accept = function(conn) conn:tag("n", store:incr("all", 1, 0)) end } }]]):format(extra, server.address))
    end
    local p = t:penstock { "run", write "" }
    local function count(n)
      local client, upstream = t:expect_echo(p, server)
      client:finish()
      upstream:expect_eof()
      upstream:finish()
      p:expect_end({ n = tostring(n), reason = "eof" }, n)
    end
    count(1)
    write "-- another version"
    reload(p, "version (2) is in force")
    count(2)
    write 'error "broken"'
    reload(p, "(version 2 stays in force)")
    count(3)
  end)
end)

describe("conn:timeout", function()
  case("gives one connection an idle time of its own, and takes another's away", function(t)
    local p, server = scripted.start(t, [[
      return { accept = function(conn)
        if conn.seq == 1 then conn:timeout { idle = 0 } end
        if conn.seq == 2 then conn:timeout { idle = 0.2 } end
      end }]], { args = { "--idle-timeout", "700ms" } })
    local kept, kept_upstream = t:pair(p, server)
    local short = t:pair(p, server)
    local plain = t:pair(p, server)
    short:expect_reset()
    plain:expect_reset()
    local first, second = p:access(1), p:access(2)
    assert.same({ 2, "idle", 3, "idle" }, { first.id, first.detail, second.id, second.detail })
    kept:send "still"
    kept_upstream:expect "still"
  end)
end)

describe("routing by SNI", function()
  case("finds the name in a hello that is as large as those with a post-quantum key, wherever TCP cuts it", function(t)
    local server = t:listen()
    local p = scripted.start(t, ([[
      return { connect = function(conn)
        local hello, why = conn:hello()
        conn:tag("name", hello and hello.sni or why)
        return %q
      end }]]):format(server.address), { target = "-" })
    local function u16(n) return string.char(math.floor(n / 256), n % 256) end
    local function extension(kind, body) return u16(kind) .. u16(#body) .. body end
    local name = "db.lab"
    local share = u16(0x11ec) .. u16(1216) .. ("k"):rep(1216) -- X25519MLKEM768, before the name
    local extensions = extension(51, u16(#share) .. share) .. extension(0, u16(#name + 3) .. "\0" .. u16(#name) .. name)
    local body = "\3\3" .. ("r"):rep(32) .. "\0" .. "\0\2\19\1" .. "\1\0" .. u16(#extensions) .. extensions
    local hello = "\22\3\1" .. u16(#body + 4) .. "\1\0" .. u16(#body) .. body
    local cuts = { 1, 5, 9, 100, 1280, #hello - 10, #hello - 1 }
    for n, at in ipairs(cuts) do
      local client = t:connect(p)
      client:send(hello:sub(1, at))
      client:wait_delivered()
      client:send(hello:sub(at + 1))
      local upstream = t:accept(server)
      upstream:expect(hello):finish()
      client:finish()
      client:expect_eof()
      p:expect_end({ name = "db.lab", reason = "eof" }, n)
    end
  end)
end)
