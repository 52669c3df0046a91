-- Filters: what a policy may do with the stream of a direction, and what becomes of it when it stops.
local e2e = require "tests.e2e.support.case"
local scripted = require "tests.e2e.support.scripted"
local case, bulk, sys = e2e.case, e2e.bulk, e2e.sys

local KB, MB = 1024, 1024 * 1024

-- Filters that change nothing, each in its own way.
local identities = {
  read = "while true do local s = rd:read() if not s then return end wr:write(s) end",
  ["read(1000)"] = "while true do local s = rd:read(1000) if not s then return end wr:write(s) end",
  buffer = "while true do local b = rd:buffer() if not b then return end wr:write(b) end",
  pass = "assert(wr:pass(rd))",
  ["pass(n)"] = "local n = 1 while rd:peek(1) do wr:pass(rd, n) n = n * 3 % 100003 end",
  lines = "for line, eol in rd:lines(2^25) do wr:write(line, eol) end",
  exactly = [[
    while true do
      local s = rd:exactly(3001)
      if not s then return end -- fewer are left: they pass
      wr:write(s)
    end]],
  ["read and unread"] = [[
    while true do
      local s = rd:read()
      if not s then return end
      local half = math.ceil(#s / 2)
      rd:unread(s:sub(half + 1))
      wr:write(s:sub(1, half))
    end]],
  ["a task of its own"] = [[
    local task = ps.spawn(function()
      while true do local s = rd:read() if not s then return end wr:write(s) end
    end)
    task:wait()]],
  ["a coroutine"] = [[
    local chunks = coroutine.wrap(function()
      while true do coroutine.yield(rd:read()) end
    end)
    for s in chunks do wr:write(s) end]],
}

local function both(body)
  return ("local function f(conn, rd, wr)\n%s\nend\nreturn { filter = { up = f, down = f } }"):format(body)
end

local function expect_scripted_end(p, reason)
  p:expect_end { reason = reason }
end

describe("an identity filter", function()
  for name, body in pairs(identities) do
    case(("by %s leaves megabytes unchanged, both ways at once"):format(name), function(t)
      local p, server = scripted.start(t, both(body))
      local client, upstream = t:pair(p, server)
      local rnd = bulk.random(4711)
      bulk.run {
        { from = client, to = upstream, bytes = 3 * MB, finish = true, chunk = function() return rnd(70000) end,
          read = function() return rnd(90000) end },
        { from = upstream, to = client, bytes = 5 * MB, finish = true, chunk = function() return rnd(300000) end },
      }
      expect_scripted_end(p, "eof")
    end)

    case(("by %s leaves single bytes unchanged"):format(name), function(t)
      local p, server = scripted.start(t, both(body))
      local client, upstream = t:pair(p, server)
      bulk.run {
        { from = client, to = upstream, bytes = 700, finish = true, chunk = function() return 1 end },
        { from = upstream, to = client, bytes = 500, finish = true, chunk = function() return 1 end },
      }
      expect_scripted_end(p, "eof")
    end)
  end

  for _, first in ipairs { "client", "upstream" } do
    case(("lets the %s end first and the other go on"):format(first), function(t)
      local p, server = scripted.start(t, both(identities.read))
      local client, upstream = t:pair(p, server)
      local a, b = client, upstream
      if first == "upstream" then a, b = b, a end
      a:send("question"):finish()
      b:expect("question"):expect_eof()
      bulk.run { { from = b, to = a, bytes = 2 * MB, finish = true } }
      p:expect_end { reason = "eof", side = first }
    end)
  end

  case("delivers to a reader that is slow to begin", function(t)
    local p, server = scripted.up(t, identities.read, { listen = { rcvbuf = 4096 } })
    local client, upstream = t:pair(p, server)
    local memory = p:memory_kb()
    local sent = bulk.fill(client, 60 * MB)
    assert.is_true(p:memory_kb() - memory < 8 * KB * (p:sanitizer() and 8 or 1), "it holds too much")
    client:finish()
    local got = upstream:read(sent)
    assert.equal(bulk.text(0, sent), got)
    upstream:expect_eof()
  end)
end)

describe("a filter that sleeps", function()
  case("stops reading its client, holds little, and the other direction runs on", function(t)
    local p, server = scripted.up(t, "rd:read() ps.sleep(3600)")
    local client, upstream = t:pair(p, server)
    local memory = p:memory_kb()
    bulk.fill(client, 40 * MB) -- raises when more is taken
    bulk.run { { from = upstream, to = client, bytes = 8 * MB } }
    assert.is_true(p:memory_kb() - memory < 8 * KB * (p:sanitizer() and 8 or 1), "it holds too much")
    upstream:reset()
    p:expect_end { reason = "reset", side = "upstream" }
  end)

  case("keeps no other connection waiting", function(t)
    local p, server = scripted.up(t, 'if rd:peek(1) == "z" then ps.sleep(3600) end')
    local sleeper, upstream = t:pair(p, server)
    sleeper:send "z"
    for _ = 1, 3 do t:expect_echo(p, server) end
    upstream:reset()
    sleeper:expect_reset()
  end)
end)

describe("a filter that returns", function()
  for name, body in pairs {
    ["at once"] = "",
    ["in the middle of a read"] = "local s = rd:exactly(7) wr:write(s)",
    ["after it has peeked"] = "rd:peek(20)",
    ["after a failed line"] = 'local l, why = rd:line(100) assert(not l and why == "too_long")',
    ["after a failed upto"] = [[local l, why = rd:upto("\0\0\0\0\0\0", 100) assert(not l and why == "too_long")]],
    ["after a failed frame"] = [[
      local h, why = rd:frame { skip = 4, len = "u32be", max = 10 } assert(not h and why == "too_long")]],
  } do
    case(name .. " leaves the rest to C, which splices it", function(t)
      local p, server = scripted.start(t, ([[
        return { filter = {
          up = function(conn, rd, wr)
            assert(conn.mode.up == "lua", conn.mode.up)
            %s
          end,
          down = function(conn, rd) rd:line() conn.log.info("modes %%s %%s", conn.mode.up, conn.mode.down) end,
        } }]]):format(body), { args = { "--mode", "splice" } })
      local client, upstream = t:pair(p, server)
      local memory = 12345 -- an offset where the content is no line and no small frame
      bulk.run { { from = client, to = upstream, bytes = 12 * MB, offset = memory } }
      upstream:send "report\n"
      p:log "modes splice lua"
      bulk.run { { from = client, to = upstream, bytes = 1 * MB, offset = memory, finish = true },
        { from = upstream, to = client, bytes = 1 * MB, finish = true } }
      p:expect_end { reason = "eof", up = 13 * MB, down = MB + 7 }
    end)
  end

  case("at the end of the stream forwards a line without an end", function(t)
    local p, server = scripted.up(t, [[
      while true do
        local text = rd:upto("\r\n")
        if not text then return end
        wr:write("[", text, "]")
      end]])
    local client, upstream = t:pair(p, server)
    client:send("a\r\nb\r\nrest\r"):finish()
    upstream:expect("[a][b]rest\r"):expect_eof()
  end)

  case("with the handshake done in both directions leaves both to C", function(t)
    local p, server = scripted.start(t, [[
      return { filter = {
        up = function(conn, rd, wr) wr:write("<", (rd:line()), ">") end,
        down = function(conn, rd, wr) wr:write("(", rd:exactly(2), ")") end,
      } }]])
    local client, upstream = t:pair(p, server)
    client:send "hello\nmore"
    upstream:expect("<hello>more"):send "okrest"
    client:expect("(ok)rest"):send("!"):finish()
    upstream:expect("!"):expect_eof()
    upstream:finish()
    client:expect_eof()
  end)
end)

describe("a filter that fails", function()
  for name, body in pairs {
    ["by an error"] = 'error "no"',
    ["by an error that is no string"] = "error({})",
    ["by an error that is nil"] = "error()",
    ["by a misused call"] = "rd:exactly(-1)",
    ["by reading what it should write"] = "wr:read()",
    ["by writing what it should read"] = 'rd:write("x")',
    ["by a loop without end"] = "while true do end",
  } do
    case(name .. " resets both sides, and nothing else", function(t)
      t:expect_error "script error in the up filter"
      local p, server = scripted.up(t, 'if rd:peek(1) ~= "!" then return end ' .. body)
      local other, other_up = t:pair(p, server)
      other:send "ok"
      other_up:expect "ok"
      local client, upstream = t:pair(p, server)
      client:send "!"
      client:expect_reset()
      upstream:expect_reset()
      p:expect_end({ reason = "script", detail = "filter" }, 1)
      other:send "still"
      other_up:expect "still"
    end)
  end

  case("after the other side has been given something resets it all the same", function(t)
    t:expect_error "script error in the up filter"
    local p, server = scripted.up(t, 'wr:write(rd:exactly(3)) rd:exactly(3) error "no"')
    local client, upstream = t:pair(p, server)
    client:send "abc"
    upstream:expect "abc"
    client:send "def"
    upstream:expect_reset()
    client:expect_reset()
  end)
end)

describe("an abort", function()
  local waits = {
    read = "rd:read() rd:read()",
    line = "rd:read(1) rd:line()",
    exactly = "rd:read(1) rd:exactly(1000)",
    ["a read under a limit"] = "rd:read(1) ps.timeout(3600, function() rd:exactly(1000) end)",
    race = "rd:read(1) ps.race(function() rd:line() end, function() ps.sleep(3600) end)",
  }
  for name, body in pairs(waits) do
    for _, text in ipairs { "x", "xyz" } do
      case(("of the client cancels a filter that waits in %s, with %d bytes there"):format(name, #text), function(t)
        local p, server = scripted.start(t, ([[
          return { filter = { up = function(conn, rd, wr)
            local ok, why = pcall(function() conn.log.info "waits" %s end)
            conn.log.info("ended by %%s", tostring(why))
            error(why, 0)
          end } }]]):format(body))
        local client, upstream = t:pair(p, server)
        client:send(text)
        p:log "waits"
        client:wait_delivered()
        sys.pass(0.05)
        client:reset()
        p:log "ended by ps.CANCELLED"
        upstream:expect_reset()
        p:expect_end { reason = "reset", side = "client" }
      end)
    end
  end

  case("of the upstream cancels an up filter that sleeps", function(t)
    local p, server = scripted.up(t, "rd:read() conn.log.info 'sleeps' ps.sleep(3600)")
    local client, upstream = t:pair(p, server)
    client:send "x"
    p:log "sleeps"
    upstream:reset()
    client:expect_reset()
    p:expect_end { reason = "reset", side = "upstream" }
  end)

  case("of the upstream cancels a filter that waits for room to write", function(t)
    local p, server = scripted.up(t, [[
      rd:read()
      conn.log.info "writes"
      while true do wr:write(("x"):rep(100000)) end]], { listen = { rcvbuf = 4096 } })
    local client, upstream = t:pair(p, server)
    client:send "x"
    p:log "writes"
    upstream:wait "r"
    sys.pass(0.1)
    upstream:reset()
    client:expect_reset()
    p:expect_end { reason = "reset", side = "upstream" }
  end)

  case("of the client is passed on once the filter has let go what was received", function(t)
    local p, server = scripted.up(t, [[
      local line = rd:line()
      conn.log.info "has it"
      ps.sleep(0.3)
      wr:write(line, "\n")
      while true do wr:write(assert(rd:line()), "\n") end]])
    local client, upstream = t:pair(p, server)
    client:send "one\ntwo\nhalf"
    p:log "has it"
    client:wait_delivered()
    client:reset()
    local got, how = upstream:read_all()
    assert.equal("one\ntwo\n", got)
    assert.equal("ECONNRESET", how)
    p:expect_end { reason = "reset", side = "client" }
  end)

  case("of the client reaches a slow upstream behind all that was received", function(t)
    local p, server = scripted.up(t, identities.read, { listen = { rcvbuf = 4096 } })
    local client, upstream = t:pair(p, server)
    local text = bulk.text(0, 300000)
    client:send(text)
    client:wait_delivered()
    client:reset()
    local got, how = upstream:read_all()
    assert.equal(#text, #got)
    assert.equal(text, got)
    assert.equal("ECONNRESET", how)
  end)
end)

describe("writing:", function()
  case("write waits above the high-water mark, and goes on when the reader does", function(t)
    local p, server = scripted.up(t, [[
      local piece = ("x"):rep(65536)
      for i = 1, 200 do
        wr:write(piece)
        if i % 10 == 0 then conn.log.info("at %d", i) end
      end
      conn.log.info "all written"]], { listen = { rcvbuf = 4096 } })
    local memory = p:memory_kb()
    local _, upstream = t:pair(p, server)
    p:log "at 10"
    sys.pass(0.2)
    assert.is_nil(p.err:match "all written")
    assert.is_true(p:memory_kb() - memory < 8 * KB * (p:sanitizer() and 8 or 1), "it holds too much")
    assert.equal(200 * 65536, #upstream:read(200 * 65536))
    p:log "all written"
  end)

  case("finish ends what is written and lets the other direction go on", function(t)
    local p, server = scripted.up(t, 'wr:write("all") wr:finish() wr:finish() wr:flush()')
    local client, upstream = t:pair(p, server)
    upstream:expect("all"):expect_eof()
    upstream:send("reply"):finish()
    client:expect("reply"):expect_eof()
    p:expect_end { reason = "eof" }
  end)

  case("nothing can be written after finish", function(t)
    t:expect_error "wr:write%(…%) after wr:finish%(%)"
    local p, server = scripted.up(t, 'wr:finish() wr:write("x")')
    local client = t:pair(p, server)
    client:expect_reset()
  end)

  case("flush waits until the socket has taken it", function(t)
    local p, server = scripted.up(t, [[
      wr:write(("x"):rep(200000))
      wr:flush()
      conn.log.info "flushed"]])
    local _, upstream = t:pair(p, server)
    assert.equal(200000, #upstream:read(200000))
    p:log "flushed"
  end)

  case("write takes strings, numbers and buffers in one call, or nothing of them", function(t)
    t:expect_error "argument 2 is nil"
    local p, server = scripted.up(t, [[
      local view = rd:buffer(3)
      wr:write("a", 1, 2.5, view, view)
      wr:write("b", nil)]])
    local client, upstream = t:pair(p, server)
    client:send "xyz"
    local got, how = upstream:read_all()
    assert.is_true(("a12.5xyzxyz"):sub(1, #got) == got, got)
    assert.equal("ECONNRESET", how)
  end)
end)

describe("from another hook,", function()
  case("conn:pass ends the filter, and C relays the rest", function(t)
    local p, server = scripted.start(t, [[
      return { filter = {
        up = function(conn, rd, wr)
          local ok, why = pcall(function() while true do wr:write((rd:read():upper())) end end)
          conn.log.info("ended by %s", tostring(why))
          error(why, 0)
        end,
        down = function(conn, rd) rd:line() conn:pass "up" end } }]])
    local client, upstream = t:pair(p, server)
    client:send "abc"
    upstream:expect("ABC"):send "go\n"
    p:log "ended by ps.CANCELLED"
    client:send "abc"
    upstream:expect "abc"
    client:finish()
    upstream:expect_eof()
    upstream:finish()
    client:expect_eof()
  end)

  case("conn:inject puts bytes between those that are relayed, into a spliced direction too", function(t)
    local p, server = scripted.start(t, [[
      return { filter = { up = function(conn, rd, wr)
        rd:line()
        conn.log.info("down is %s", conn.mode.down)
        assert(conn:inject("down", "<injected>"))
      end } }]], { args = { "--mode", "splice" } })
    local client, upstream = t:pair(p, server)
    bulk.run { { from = upstream, to = client, bytes = 8 * MB } }
    client:send "now\n"
    client:expect "<injected>"
    upstream:send "after"
    client:expect "after"
    p:log "down is splice"
  end)

  case("conn:inject refuses what would not be bounded", function(t)
    local p, server = scripted.start(t, [[
      return { filter = { up = function(conn, rd, wr)
        local n, ok, why = 0
        repeat
          ok, why = conn:inject("down", ("x"):rep(100000))
          n = n + 1
        until not ok
        conn.log.info("%s after %d", why, n)
      end } }]])
    local client = t:pair(p, server)
    p:log "limit after"
    client:reset()
  end)

  for name, call in pairs { close = "conn:close()", reset = "conn:reset()", deny = 'conn:deny { reason = "no" }' } do
    case(("conn:%s ends filters of both directions"):format(name), function(t)
      local p, server = scripted.start(t, ([[
        return { filter = {
          up = function(conn, rd) rd:line() %s conn.log.info "after it" rd:line() conn.log.info "too far" end,
          down = function(conn, rd)
            conn.log.info "down reads"
            local ok, why = pcall(rd.read, rd)
            conn.log.info("down ended by %%s", tostring(why))
            error(why, 0)
          end } }]]):format(call))
      local client, upstream = t:pair(p, server)
      p:log "down reads"
      client:send "now\n"
      p:log "after it"
      p:log "down ended by ps.CANCELLED"
      if name == "reset" then client:expect_reset() else client:expect_eof() end
      p:expect_end(name == "deny" and { reason = "denied", detail = "no" } or { reason = "closed" })
      upstream:read_all()
      assert.is_nil(p.err:match "too far")
    end)
  end
end)

describe("short connections", function()
  case("with filters of each kind leave nothing behind", function(t)
    local p, server = scripted.start(t, [[
      local alive = 0
      ps.every(0.05, function() end)
      return {
        connect = function(conn) ps.spawn(function() ps.sleep(3600) end) conn:after(3600, print) end,
        filter = {
          up = function(conn, rd, wr)
            local kind = rd:line()
            if kind == "report" then
              collectgarbage() collectgarbage()
              conn.log.info("heap %d", collectgarbage "count")
            elseif kind == "error" then error "no"
            elseif kind == "sleep" then ps.sleep(3600)
            elseif kind == "race" then ps.race(function() rd:line() end, function() ps.sleep(3600) end)
            elseif kind == "spawn" then ps.spawn(function() rd:line() end):wait()
            elseif kind == "signal" then ps.signal():wait()
            elseif kind == "read" then rd:read() end
          end,
          down = function(conn, rd, wr) wr:pass(rd) end,
        } }]])
    t:expect_error "script error in the up filter"
    t:expect_error "script error came %d+ more times"
    local function report()
      local client, upstream = t:pair(p, server)
      local from = #p.err + 1
      client:send "report\n"
      local heap = tonumber((p:log("heap (%d+)", from)))
      client:close()
      upstream:close()
      return heap
    end
    local function run(n)
      local kinds = { "pass", "error", "sleep", "race", "spawn", "signal", "read" }
      for i = 1, n do
        local client, upstream = t:pair(p, server)
        local kind = kinds[i % #kinds + 1]
        client:send(kind .. "\n")
        if i % 2 == 0 and kind ~= "sleep" and kind ~= "signal" then client:reset() else upstream:reset() end
        client:close()
        upstream:close()
        t.things[#t.things], t.things[#t.things - 1] = nil, nil
        if i % 50 == 0 then p:access(#p:access_lines() > 0 and i - 40 or 1) end
      end
    end
    run(300) -- fills the pools
    local before = report()
    assert(sys.wait_until(function() return #p:access_lines() >= 301 end))
    local descriptors = p:descriptors()
    run(2000)
    assert(sys.wait_until(function() return p:descriptors() <= descriptors end), "descriptors are left")
    local after = report()
    assert.is_true(after < before + 100, ("the heap has grown from %d to %d KB"):format(before, after))
    assert.is_true(p:descriptors() <= descriptors + 2, "descriptors are left")
  end)
end)
