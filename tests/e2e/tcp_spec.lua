-- ps.tcp: connections of a script's own, to a real server, and to peers that refuse, reset, end or are slow.
local e2e = require "tests.e2e.support.case"
local scripted = require "tests.e2e.support.scripted"
local net = require "tests.e2e.support.net"
local case, bulk, sys = e2e.case, e2e.bulk, e2e.sys

-- A policy that runs `body` for each client, which sees what `say` is given; PEER is the address of `peer`.
local function serve(t, peer, body, options)
  options = options or {}
  options.target = "-"
  return scripted.start(t, ([[
    local PEER = %q
    return { serve = function(conn, client)
      local function say(format, ...) client:write(format:format(...), "\n") end
      %s
    end }]]):format(peer, body), options)
end

-- One client that must be told these lines, and then the end.
local function expect_said(t, p, ...)
  local client = t:connect(p)
  for _, line in ipairs { ... } do client:expect(line .. "\n") end
  client:expect_eof()
end

local function redis(t)
  local held = net.listen("127.0.0.1:0", { bound_only = true })
  local port = held.port
  held:close()
  local server = t:spawn { "redis-server", "--port", tostring(port), "--bind", "127.0.0.1", "--save", "",
    "--appendonly", "no", "--dir", t:folder() }
  if not server:wait_for("out", "Ready to accept connections") then error("redis did not start: " .. server.out, 2) end
  server.address, server.port = "127.0.0.1:" .. port, port
  return server
end

describe("with redis", function()
  case("a client by streams sets and gets values of every size", function(t)
    local p = serve(t, redis(t).address, [[
      local s = assert(ps.tcp.connect(PEER))
      local function command(...)
        local parts = { ("*%d\r\n"):format(select("#", ...)) }
        for _, word in ipairs { ... } do parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#word, word) end
        s:write(unpack(parts))
        local kind, rest = assert(s:line()):match "^(.)(.*)$"
        if kind ~= "$" then return rest end
        local value = s:exactly(tonumber(rest))
        assert(s:exactly(2) == "\r\n")
        return value
      end
      for _, n in ipairs { 0, 1, 65535, 65536, 262144, 5000001 } do
        local value = ("ab\r\n"):rep(math.ceil(n / 4)):sub(1, n)
        assert(command("SET", "key", value) == "OK")
        assert(command("GET", "key") == value)
      end
      say("%s", command("DBSIZE"))
      s:close()]])
    expect_said(t, p, "1")
  end)

  case("a client by the cosocket names uses its connection again", function(t)
    local server = redis(t)
    local p = serve(t, server.address, ([[
      local s = ps.tcp.new()
      s:settimeouts(5000, 5000, 5000)
      s:settimeout(5000)
      assert(s:connect("127.0.0.1", %d) == 1)
      assert(s:send { "PING\r\n" } == 6)
      assert(s:receiveany(3) == "+PO" and s:receive() == "NG")
      assert(s:send { "*1\r\n", { "$4\r\n", "PING" }, "\r\n" } == 14)
      local line = assert(s:receive())
      assert(s:send "*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n")
      assert(s:receive(4) == "$5\r\n")
      local reader = s:receiveuntil("\r\n")
      say("%%s %%s %%d", line, reader(), s:getreusedtimes())
      assert(s:setkeepalive(10000, 10) == 1)
      local gone, why = s:receive()
      assert(gone == nil and why == "closed")]]):format(server.port))
    expect_said(t, p, "+PONG hello 0")
    expect_said(t, p, "+PONG hello 1")
    expect_said(t, p, "+PONG hello 2")
  end)
end)

describe("connecting", function()
  case("says refused, timeout, dns, and why", function(t)
    local p = serve(t, t:refusing().address, ([[
      local s, why, detail = ps.tcp.connect(PEER)
      say("%%s %%s %%s", tostring(s), why, type(detail))
      s, why = ps.tcp.connect(%q, { timeout = 0.1 })
      say("%%s %%s", tostring(s), why)
      s, why = ps.tcp.connect("unix:/nowhere/at/all")
      say("%%s", tostring(s))
      local c = ps.tcp.new()
      local ok, word = c:connect("127.0.0.1", PEER:match ":(%%d+)")
      say("%%s %%s", tostring(ok), word)]]):format(t:blackhole().address))
    expect_said(t, p, "nil refused string", "nil timeout", "nil", "nil refused")
  end)

  case("reaches a UNIX socket", function(t)
    local peer = t:listen("unix:" .. t:folder() .. "/peer")
    local p = serve(t, peer.address, 'local s = assert(ps.tcp.connect(PEER)) say("%s", (s:line()))')
    local client = t:connect(p)
    t:accept(peer):send "hello\n"
    client:expect "hello\n"
  end)

  case("of what is no destination is explained", function(t)
    t:expect_error "script error in the serve hook"
    local p = serve(t, "x", "if client:line() == 'a' then ps.tcp.connect('no port') else ps.tcp.connect(7) end")
    for _, text in ipairs { "a\n", "b\n" } do
      local client = t:connect(p)
      client:send(text)
      client:expect_reset()
    end
    p:log "ps.tcp.connect got .*no port"
    p:log "a destination is expected, got number"
  end)
end)

describe("a socket", function()
  case("moves megabytes both ways at once, with back-pressure", function(t)
    local peer = t:listen(nil, { rcvbuf = 65536 })
    local p = serve(t, peer.address, [[
      local s = assert(ps.tcp.connect(PEER))
      ps.all(function()
        for b in function() return client:buffer() end do s:write(b) end
        s:finish()
      end, function() client:pass(s) end)]])
    local memory = p:memory_kb()
    local client = t:connect(p)
    local other = t:accept(peer)
    local sent = bulk.fill(client, 40 * 1024 * 1024)
    assert.is_true(p:memory_kb() - memory < 8192 * (p:sanitizer() and 8 or 1), "it holds too much")
    local rnd = bulk.random(99)
    bulk.run {
      { from = client, to = other, bytes = sent + 3000000, put = sent, offset = 0, finish = true },
      { from = other, to = client, bytes = 6000000, finish = true, chunk = function() return rnd(100000) end },
    }
    p:expect_end { reason = "closed", detail = "served" }
  end)

  case("that is half-closed still reads", function(t)
    local peer = t:listen()
    local p = serve(t, peer.address, [[
      local s = assert(ps.tcp.connect(PEER))
      s:write("question")
      s:finish()
      say("%s", (s:line()))
      say("%s", tostring(s:read()))]])
    local client = t:connect(p)
    local other = t:accept(peer)
    other:expect("question"):expect_eof()
    other:send("answer\n"):finish()
    client:expect "answer\nnil\n"
    client:expect_eof()
  end)

  case("delivers what was written before it was closed, to a peer that is slow to begin", function(t)
    local peer = t:listen(nil, { rcvbuf = 4096 })
    local p = serve(t, peer.address, [[
      local s = assert(ps.tcp.connect(PEER))
      s:write(("x"):rep(200000))
      s:close()
      say("%s %s", tostring(s:write("y")), tostring((s:close())))]])
    local client = t:connect(p)
    local other = t:accept(peer)
    client:expect "nil nil\n"
    client:expect_eof()
    sys.pass(0.2)
    local got, how = other:read_all()
    assert.equal(200000, #got)
    assert.equal("eof", how)
  end)

  -- A hook that writes to a peer that does not read until nothing more is taken, does `body`, and is over. Returns the
  -- peer's connection, and how much was written at least.
  local function fill_and_go(t, body)
    local peer = t:listen(nil, { rcvbuf = 4096 })
    local p = serve(t, peer.address, [[
      local s = assert(ps.tcp.connect(PEER, { timeout = 0.3 }))
      local piece, n = ("x"):rep(16384), 0
      while s:write(piece) do n = n + #piece end
      say("%d", n)
      ]] .. body)
    local client = t:connect(p)
    local other = t:accept(peer)
    local written = assert(tonumber((client:read_all())))
    p:access()
    return other, written, p
  end

  local ends = {
    ["closed"] = "s:close()",
    ["finished"] = "s:finish()",
    ["neither finished nor closed"] = "",
    ["left to the collector"] = "s = nil collectgarbage() collectgarbage()",
    ["finished, and its connection reset"] = "s:finish() conn:reset()",
  }
  for how, body in pairs(ends) do
    case("delivers what was written when it is " .. how, function(t)
      local other, written = fill_and_go(t, body)
      local got, last = other:read_all()
      assert.is_true(#got >= written, ("%d of %d bytes"):format(#got, written))
      assert.equal("eof", last)
    end)
  end

  case("is reset when what was written cannot be delivered any more: a FIN would say that this was all", function(t)
    local other, written, p = fill_and_go(t, "s:finish()")
    p:stop()
    local got, how = other:read_all()
    assert.is_true(#got < written)
    assert.equal("ECONNRESET", how)
  end)

  case("tells reset from eof, and what came before it is read first", function(t)
    local peer = t:listen()
    local p = serve(t, peer.address, [[
      local s = assert(ps.tcp.connect(PEER))
      say("connected")
      client:line()
      local a = s:exactly(3)
      local b, why = s:line()
      local c, again = s:read()
      local d, write = s:write("x")
      say("%s %s %s %s %s %s %s", a, tostring(b), why, c, tostring(again), tostring(d), tostring(write))]])
    local client = t:connect(p)
    local other = t:accept(peer)
    client:expect "connected\n"
    other:send "abcd"
    other:wait_delivered()
    other:reset()
    sys.pass(0.05)
    client:send "\n"
    client:expect "abc nil reset d nil nil reset\n"
  end)

  case("that waits for room to write is told of a reset", function(t)
    local peer = t:listen(nil, { rcvbuf = 4096 })
    local p = serve(t, peer.address, [[
      local s = assert(ps.tcp.connect(PEER))
      local ok, why
      repeat ok, why = s:write(("x"):rep(100000)) until not ok
      say("%s %s", tostring(ok), why)]])
    local client = t:connect(p)
    local other = t:accept(peer)
    other:wait "r"
    sys.pass(0.1)
    other:reset()
    client:expect "nil reset\n"
  end)

  case("gives up each wait after its timeout, and can go on", function(t)
    local peer = t:listen(nil, { rcvbuf = 4096 })
    local p = serve(t, peer.address, [[
      local s = assert(ps.tcp.connect(PEER, { timeout = 0.1 }))
      local a, why = s:line()
      say("%s %s", tostring(a), why)
      client:line()
      say("%s", (s:line()))
      local ok
      repeat ok, why = s:write(("x"):rep(100000)) until not ok
      say("%s %s", tostring(ok), why)]])
    local client = t:connect(p)
    local other = t:accept(peer)
    other:send "half"
    client:expect "nil timeout\n"
    other:send " and half\n"
    other:wait_delivered()
    client:send "\n"
    client:expect "half and half\nnil timeout\n"
  end)

  case("by the cosocket names hands out what a failed read has left", function(t)
    local peer = t:listen()
    local p = serve(t, peer.address, [[
      local s = ps.tcp.new()
      assert(s:connect(PEER:match "^(.*):(%d+)$"))
      local a, why, partial = s:receive(100)
      say("%s %s %s", tostring(a), why, partial)
      assert(s:connect(PEER:match "^(.*):(%d+)$"))
      say("%s", s:receive "*a")]])
    local client = t:connect(p)
    local first = t:accept(peer)
    first:send("part"):close()
    client:expect "nil closed part\n"
    local second = t:accept(peer)
    second:send("all\nof it"):close()
    client:expect "all\nof it\n"
  end)

  case("ends with the connection of its hook", function(t)
    local peer = t:listen()
    local p = serve(t, peer.address, 'local s = assert(ps.tcp.connect(PEER)) conn.ctx.s = s client:line()')
    local client = t:connect(p)
    local other = t:accept(peer)
    client:send "x\n"
    client:expect_eof()
    client:close()
    other:expect_eof()
  end)

  case("of a close hook ends with it", function(t)
    local peer = t:listen()
    local p, server = scripted.start(t, ([[
      return { close = function(conn, info)
        local s = assert(ps.tcp.connect(%q))
        s:write(info.reason, "\n")
        conn.log.info("told: %%s", (s:line()))
      end }]]):format(peer.address))
    local client, upstream = t:pair(p, server)
    client:close()
    upstream:close()
    local other = t:accept(peer)
    other:expect "eof\n"
    other:send "ok\n"
    p:log "told: ok"
    other:expect_eof()
  end)

  case("that nobody holds any more is closed", function(t)
    local peer = t:listen()
    local p = scripted.start(t, ([[
      ps.on_start(function()
        do local s = assert(ps.tcp.connect(%q)) s:write "x" end
        ps.sleep(0.01)
        collectgarbage() collectgarbage()
        ps.log.info "collected"
        ps.sleep(3600)
      end)
      return {}]]):format(peer.address))
    local other = t:accept(peer)
    other:expect "x"
    p:log "collected"
    other:expect_eof()
  end)

  case("cannot be read by two at once", function(t)
    t:expect_error "another coroutine already reads this stream"
    local peer = t:listen()
    local p = serve(t, peer.address, [[
      local s = assert(ps.tcp.connect(PEER))
      ps.spawn(function() s:read() end)
      ps.sleep(0.01)
      s:read()]])
    t:connect(p):expect_reset()
  end)
end)

describe("the pool of idle connections", function()
  local again = [[
    local s = ps.tcp.new()
    assert(s:connect(PEER:match "^(.*):(%d+)$"))
    s:send(client:line() .. "\n")
    local line, why = s:receive()
    say("%s %s %d", tostring(line), tostring(why), s:getreusedtimes())
    local ok, word = s:setkeepalive(IDLE, SIZE)
    say("%s %s", tostring(ok), tostring(word))]]
  local function text(idle, size) return (again:gsub("IDLE", idle):gsub("SIZE", size)) end

  local function ask(t, p, question)
    local client = t:connect(p)
    client:send(question .. "\n")
    return client
  end

  case("uses the newest one first, and forgets those that the peer has closed meanwhile", function(t)
    local peer = t:listen()
    local p = serve(t, peer.address, text("60000", "10"))
    local client = ask(t, p, "one")
    local other = t:accept(peer)
    other:expect("one\n"):send "1\n"
    client:expect "1 nil 0\n1 nil\n"
    client:expect_eof()
    client = ask(t, p, "two")
    other:expect("two\n"):send "2\n"
    client:expect "2 nil 1\n1 nil\n"
    client:expect_eof()
    other:close()
    sys.pass(0.05)
    client = ask(t, p, "three")
    local fresh = t:accept(peer)
    fresh:expect("three\n"):send "3\n"
    client:expect "3 nil 0\n1 nil\n"
  end)

  case("closes a connection after its time, and above its size", function(t)
    local peer = t:listen()
    local p = serve(t, peer.address, text("300", "1"))
    local first = ask(t, p, "a")
    local one = t:accept(peer)
    one:expect "a\n"
    local second = ask(t, p, "b")
    local two = t:accept(peer)
    two:expect "b\n"
    one:send "1\n"
    first:expect "1 nil 0\n1 nil\n"
    two:send "2\n"
    second:expect "2 nil 0\n1 nil\n"
    one:expect_eof()
    two:expect_eof()
  end)

  case("takes no connection on which something is left", function(t)
    local peer = t:listen()
    local p = serve(t, peer.address, text("60000", "10"))
    local client = ask(t, p, "a")
    local other = t:accept(peer)
    other:expect("a\n"):send "1\nleft over"
    client:expect "1 nil 0\nnil closed\n"
    local _, how = other:read_all()
    assert.truthy(how)
  end)
end)
