-- How connections end: half-closes pass, aborts stay aborts, and what was received is delivered first.
local e2e = require "tests.e2e.support.case"
local case, case_in_modes, bulk = e2e.case, e2e.case_in_modes, e2e.bulk

local KB, MB = 1024, 1024 * 1024

local function start(t, mode, options)
  local server = t:listen("127.0.0.1:0", options)
  return t:penstock { "--mode", mode, "127.0.0.1:0", server.address }, server
end

-- "from the client" and "from the upstream": the case is run with both roles.
local function case_from_both_sides(name, run)
  for _, side in ipairs { "client", "upstream" } do
    case_in_modes(("%s, from the %s"):format(name, side), function(t, mode) run(t, mode, side) end)
  end
end

-- The sockets as (the one that acts, the one that sees it).
local function roles(t, p, server, side, options)
  local client, upstream = t:pair(p, server, options)
  if side == "client" then return client, upstream end
  return upstream, client
end

describe("half-close:", function()
  case_from_both_sides("it lets the answer through", function(t, mode, side)
    local p, server = start(t, mode)
    local a, b = roles(t, p, server, side)
    a:send "question"
    a:finish()
    b:expect "question"
    b:expect_eof()
    bulk.run { { from = b, to = a, bytes = 3 * MB, finish = true } }
    p:expect_end { reason = "eof", side = side }
  end)

  case_in_modes("a client that sends, half-closes at once and waits gets its answer", function(t, mode)
    local p, server = start(t, mode)
    local client = t:connect(p)
    client:send "GET /\r\n"
    client:finish()
    local upstream = t:accept(server)
    upstream:expect "GET /\r\n"
    upstream:expect_eof()
    upstream:send "answer"
    upstream:close()
    client:expect "answer"
    client:expect_eof()
    p:expect_end { reason = "eof", up = 7, down = 6 }
  end)

  case_in_modes("a client that half-closes without a byte is passed on", function(t, mode)
    local p, server = start(t, mode)
    local client = t:connect(p)
    client:finish()
    local upstream = t:accept(server)
    upstream:expect_eof()
    upstream:close()
    client:expect_eof()
    p:expect_end { reason = "eof", up = 0, down = 0 }
  end)

  case("it passes over UNIX sockets", function(t)
    local folder = t:folder()
    local server = t:listen("unix:" .. folder .. "/upstream")
    local p = t:penstock { "unix:" .. folder .. "/listen", server.address }
    local client, upstream = t:pair(p, server)
    client:send("question"):finish()
    upstream:expect "question"
    upstream:expect_eof()
    upstream:send("answer"):finish()
    client:expect "answer"
    client:expect_eof()
    p:expect_end { reason = "eof" }
  end)
end)

describe("close:", function()
  case_from_both_sides("8 MB sent before it reach a slow reader", function(t, mode, side)
    local p, server = start(t, mode, { rcvbuf = 32 * KB })
    local a, b = roles(t, p, server, side, { rcvbuf = 32 * KB })
    bulk.run { { from = a, to = b, bytes = 8 * MB, close = true, read = function() return 8 * KB end } }
    b:close()
    p:expect_end { reason = "eof", side = side }
  end)

  case_in_modes("both sides at once end cleanly", function(t, mode)
    local p, server = start(t, mode)
    for i = 1, 20 do
      local client, upstream = t:pair(p, server)
      client:send("up"):finish()
      upstream:send("down"):finish()
      client:expect "down"
      client:expect_eof()
      upstream:expect "up"
      upstream:expect_eof()
      p:expect_end({ reason = "eof" }, i)
    end
  end)
end)

describe("abort:", function()
  case_from_both_sides("a reset is a reset for the other side", function(t, mode, side)
    local p, server = start(t, mode)
    local a, b = roles(t, p, server, side)
    a:send "hello"
    b:expect "hello"
    a:reset()
    b:expect_reset()
    p:expect_end { reason = "reset", side = side }
  end)

  case_from_both_sides("what was received before a reset is delivered first, then the reset", function(t, mode, side)
    local p, server = start(t, mode)
    local a, b = roles(t, p, server, side)
    local text = bulk.text(0, 60 * KB)
    a:send(text)
    a:wait_delivered()
    a:reset()
    b:expect(text)
    b:expect_reset()
    p:expect_end { reason = "reset", side = side }
  end)

  case_from_both_sides("2 MB received before a reset reach a slow reader, then the reset", function(t, mode, side)
    local p, server = start(t, mode, { rcvbuf = 32 * KB })
    local a, b = roles(t, p, server, side, { rcvbuf = 32 * KB })
    local text = bulk.text(0, 2 * MB)
    a:send(text)
    a:wait_delivered()
    a:reset()
    for at = 1, #text, 8 * KB do b:expect(text:sub(at, at + 8 * KB - 1)) end
    b:expect_reset()
    p:expect_end { reason = "reset", side = side }
  end)

  case_from_both_sides("a reset after a half-close frees both sides although the other is silent",
    function(t, mode, side)
      local p, server = start(t, mode)
      local a, b = roles(t, p, server, side)
      a:finish()
      b:expect_eof()
      a:reset()
      b:wait_gone()
      p:expect_end { reason = "reset", side = side }
    end)

  case_from_both_sides("a reset ends a transfer towards the one who sent it", function(t, mode, side)
    local p, server = start(t, mode)
    local a, b = roles(t, p, server, side)
    bulk.run { { from = b, to = a, bytes = 1 * MB } }
    bulk.fill(b, 70 * MB, 0.05)
    a:reset()
    b:expect_reset()
    p:expect_end { reason = "reset", side = side }
  end)

  case_in_modes("an early answer of an upstream that resets reaches a client that is still sending",
    function(t, mode)
      local p, server = start(t, mode)
      local client, upstream = t:pair(p, server)
      bulk.fill(client, 70 * MB, 0.05)
      local answer = bulk.text(0, 30 * KB)
      upstream:send(answer)
      upstream:wait_delivered()
      upstream:close() -- with bytes unread: a reset
      client:expect(answer)
      client:expect_reset()
      p:expect_end { reason = "reset", side = "upstream" }
    end)

  case_from_both_sides("a reset and the other side's end at the same moment are a reset", function(t, mode, side)
    local p, server = start(t, mode)
    for i, order in ipairs { "reset first", "end first" } do
      local a, b = roles(t, p, server, side)
      a:send "x"
      b:expect "x"
      p:freeze() -- so that it sees both at once
      if order == "end first" then b:finish() end
      a:reset()
      if order == "reset first" then b:finish() end
      p:thaw()
      b:wait_gone()
      p:expect_end({ reason = "reset", side = side, detail = "-" }, i)
    end
  end)

  case("a reader that takes nothing after the other side's reset is given up after the half-close timeout", function(t)
    local server = t:listen("127.0.0.1:0", { rcvbuf = 16 * KB })
    local p = t:penstock { "--half-close-timeout", "500ms", "127.0.0.1:0", server.address }
    local client = t:pair(p, server)
    client:send(bulk.text(0, 2 * MB))
    client:wait_delivered()
    client:reset()
    p:expect_end { reason = "reset", side = "client" }
  end)

  case("a client that resets while the upstream is being dialled ends the dial at once", function(t)
    local hole = t:blackhole()
    local p = t:penstock { "--connect-timeout", "1h", "127.0.0.1:0", hole.address }
    local client = t:connect(p)
    p:log "room for (%d+)"
    client:reset()
    p:expect_end { reason = "reset", side = "client" }
  end)

  case("a client that half-closes while the upstream is being dialled gets its answer", function(t)
    local hole = t:blackhole()
    local p = t:penstock { "127.0.0.1:0", hole.address }
    local client = t:connect(p)
    client:send "question"
    client:finish()
    -- Room in the backlog: the kernel's next SYN gets through.
    for _, filler in ipairs(hole.fillers) do filler:close() end
    local upstream
    repeat upstream = t:accept(hole) until upstream:receive() == "question"
    upstream:expect_eof()
    upstream:send("answer"):finish()
    client:expect "answer"
    client:expect_eof()
  end)
end)

describe("urgent data:", function()
  case_from_both_sides("it arrives in its place", function(t, mode, side)
    local p, server = start(t, mode)
    local a, b = roles(t, p, server, side)
    a:send "before"
    a:send_urgent "!"
    a:send "after"
    b:expect "before!after"
    a:send_urgent "?"
    b:expect "?"
    a:send "and on"
    b:expect "and on"
  end)

  case_from_both_sides("an end at once behind it loses nothing", function(t, mode, side)
    local p, server = start(t, mode)
    for i = 1, 10 do
      local a, b = roles(t, p, server, side)
      a:send "before"
      a:send_urgent "!"
      a:finish()
      b:expect "before!"
      b:expect_eof()
      b:send("answer"):finish()
      a:expect "answer"
      a:expect_eof()
      p:expect_end({ reason = "eof" }, i)
    end
  end)

  case_from_both_sides("it arrives in its place in the middle of a bulk transfer", function(t, mode, side)
    local p, server = start(t, mode)
    local a, b = roles(t, p, server, side)
    bulk.run { { from = a, to = b, bytes = 3 * MB, offset = 0 } } -- spliced by now, where it may be
    local n = 200 * KB
    for i = 1, 5 do
      a:send(bulk.text(i * MB, n))
      a:send_urgent "!"
      a:send(bulk.text(i * MB + n, n))
      b:expect(bulk.text(i * MB, n) .. "!" .. bulk.text(i * MB + n, n))
    end
    a:send(bulk.text(0, n))
    a:send_urgent "!"
    a:finish()
    b:expect(bulk.text(0, n) .. "!")
    b:expect_eof()
    b:finish()
    a:expect_eof()
    p:expect_end { reason = "eof", side = side }
  end)
end)
