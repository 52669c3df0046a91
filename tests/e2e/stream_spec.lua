-- What each method of a stream promises: in an up filter, and between the filters' two promises (a read that fails
-- consumes nothing; a filter sees only two endings).
local e2e = require "tests.e2e.support.case"
local scripted = require "tests.e2e.support.scripted"
local case, bulk = e2e.case, e2e.bulk

-- Sends `input` in every split in two and then byte by byte; the upstream must get `want` and the end each time.
local function splits(t, body, input, want)
  local p, server = scripted.up(t, body)
  local function try(parts)
    local client, upstream = t:pair(p, server)
    for _, part in ipairs(parts) do
      if part ~= "" then
        client:send(part)
        client:wait_delivered()
      end
    end
    client:finish()
    local got, how = upstream:read_all()
    assert.equal(want, got)
    assert.equal("eof", how)
    client:close()
    upstream:close()
  end
  for i = 0, #input do try { input:sub(1, i), input:sub(i + 1) } end
  local bytes = {}
  for i = 1, #input do bytes[i] = input:sub(i, i) end
  try(bytes)
end

describe("wherever the input is split,", function()
  case("read gives all of it, and nil at the end", function(t)
    splits(t, 'for s in function() return rd:read() end do wr:write(s) end wr:write("|", tostring(rd:read()))',
      "hello", "hello|nil")
  end)

  case("exactly gives that many bytes, and eof with fewer, which then pass", function(t)
    splits(t, [[
      while true do
        local s, why = rd:exactly(3)
        if not s then wr:write("(", why, ")") return end
        wr:write("[", s, "]")
      end]], "abcdefgh", "[abc][def](eof)gh")
  end)

  case("exactly(0) is an empty string, also at the end", function(t)
    splits(t, 'wr:write("[", rd:exactly(0), "]") rd:exactly(2) wr:write("[", rd:exactly(0), "]")', "ab", "[][]")
  end)

  case("upto gives what stands before the delimiter, which is consumed", function(t)
    splits(t, [[
      for s in function() return rd:upto("--") end do wr:write("[", s, "]") end]],
      "a--b----c-", "[a][b][]c-")
  end)

  case("line gives line and terminator, the last one with none", function(t)
    splits(t, [[for line, eol in rd:lines() do wr:write("[", line, "|", #eol, "]") end]],
      "a\r\n\nb\rc\nlast", "[a|2][|1][b\rc|1][last|0]")
  end)

  case("frame gives header and body, and eof for one that is cut off", function(t)
    splits(t, [[
      while true do
        local head, body = rd:frame { skip = 1, len = "u16be", adjust = -2, max = 10 }
        if not head then wr:write("(", body, ")") return end
        wr:write("[", #head, body, "]")
      end]], "E\0\2F\0\5abcG\0\4x", "[3][3abc](eof)G\0\4x")
  end)

  case("peek leaves the bytes where they are", function(t)
    splits(t, [[
      wr:write("[", rd:peek(3), "]")
      local s, why = rd:peek(100)
      wr:write("(", tostring(s), why, ")")]], "abcdef", "[abc](nileof)abcdef")
  end)

  case("unread is read again, before what comes", function(t)
    splits(t, [[
      local s = rd:exactly(4)
      rd:unread(s:sub(3, 4))
      rd:unread("<>")
      wr:write("[", rd:exactly(5), "]")]], "abcdef", "[<>cde]f")
  end)

  case("pass(n) moves n bytes and goes on reading behind them", function(t)
    splits(t, [[
      wr:write("[") wr:pass(rd, 3) wr:write("]")
      wr:write((rd:exactly(2):upper()))
      wr:pass(rd, 0)
      wr:write("(") wr:pass(rd, 100) wr:write(")")
      wr:write(tostring(rd:read()))]], "abcdefgh", "[abc]DE(fgh)nil")
  end)

  case("a buffer answers as a string does", function(t)
    splits(t, [[
      local s = rd:exactly(11)
      rd:unread(s)
      local b = rd:buffer()
      assert(b:len() == #s and #b == #s and tostring(b) == s)
      for i = -12, 12 do
        assert(b:byte(i) == s:byte(i))
        for j = -12, 12 do
          assert(b:sub(i, j) == s:sub(i, j))
          assert(select("#", b:byte(i, j)) == select("#", s:byte(i, j)))
        end
        for _, text in ipairs { "l", "lo w", "hello world", "no", "" } do
          local x, y = b:find(text, i)
          local p, q = s:find(text, i, true)
          if i <= 11 then assert(x == p and y == q, i .. text) end
        end
      end
      wr:write(b)]], "hello world", "hello world")
  end)
end)

describe("a read that fails", function()
  for call, why in pairs {
    ["rd:line(4)"] = "too_long", ['rd:upto("\\n", 4)'] = "too_long", ["rd:upto('#', 1000)"] = "eof",
    ["rd:exactly(1000)"] = "eof", ["rd:peek(1000)"] = "eof", ['rd:frame{ len = "u8", max = 10 }'] = "too_long",
    ['rd:frame{ len = "varint", max = 10 }'] = "too_long", ['rd:frame{ len = "u16le", max = 65535 }'] = "eof",
    ['rd:frame{ skip = 2, len = "u24be", max = 2^26 }'] = "eof",
  } do
    case(("by %s says %s and consumes nothing"):format(call, why), function(t)
      local p, server = scripted.up(t, ([[
        local a, b = %s
        conn.log.info("%%s, %%s", tostring(a), tostring(b))]]):format(call))
      local client, upstream = t:pair(p, server)
      client:send("hello\0world\nand more"):finish()
      upstream:expect("hello\0world\nand more"):expect_eof()
      p:log("nil, " .. why)
    end)
  end

  case("by a limit in time consumes nothing, and others may read at once", function(t)
    local p, server = scripted.up(t, [[
      local a, why = ps.timeout(0.05, function() return rd:exactly(6) end)
      conn.log.info("%s, %s", tostring(a), tostring(why))
      wr:write("[", rd:exactly(3), "]")
      conn.log.info "went on"
      a, why = ps.timeout(0.05, function() return rd:line() end)
      conn.log.info("then %s, %s", tostring(a), tostring(why))]])
    local client, upstream = t:pair(p, server)
    client:send "abcd"
    upstream:expect "[abc]"
    p:log "nil, timeout"
    p:log "then nil, timeout"
    client:send "e"
    upstream:expect "de"
  end)

  case("says eof again when it is called again", function(t)
    local p, server = scripted.up(t, [[
      for _ = 1, 3 do
        local a, b = rd:line()
        wr:write("(", tostring(a), tostring(b), ")")
        assert(rd:read() == nil)
      end]])
    local client, upstream = t:pair(p, server)
    client:finish()
    upstream:expect "(nileof)(nileof)(nileof)"
    upstream:expect_eof()
  end)
end)

describe("misuse", function()
  for body, message in pairs {
    ["rd:read(0)"] = "rd:read%(%[max%]%): a whole number of bytes",
    ["rd:read('x')"] = "rd:read%(%[max%]%): a whole number of bytes",
    ["rd:exactly()"] = "rd:exactly%(n%): a whole number of bytes",
    ["rd:exactly(1.5)"] = "rd:exactly%(n%): a whole number of bytes",
    ["rd:exactly(2^40)"] = "rd:exactly%(n%): a whole number of bytes",
    ["rd:line(-1)"] = "rd:line%(%[max%]%): a whole number of bytes",
    ["rd:upto('')"] = "the delimiter is a string of 1 to 32 bytes",
    ["rd:upto(('x'):rep(33))"] = "the delimiter is a string of 1 to 32 bytes",
    ["rd:frame()"] = "rd:frame{ skip",
    ["rd:frame{ len = 'u64' }"] = "len is \"u8\"",
    ["rd:frame{ len = 'u8', mx = 1 }"] = "did you mean \"max\"",
    ["rd:frame{ len = 'u8', skip = -1 }"] = "skip is a whole number",
    ["rd:unread(5)"] = "rd:unread%(bytes%): a string",
    ["rd.read()"] = "call it with a colon: rd:read",
    ["wr:write({})"] = "argument 1 is table",
    ["wr:pass(rd, -1)"] = "n is a whole number",
    ["wr:pass(wr)"] = "the second one read",
    ["ps.spawn(function() rd:read() end) ps.sleep(0.02) rd:read()"] = "another coroutine already reads this stream",
    ["(('x'):gsub('x', function() rd:exactly(2) end))"] = "a C function that called back lies between",
    ["table.sort({ 1, 2 }, function() ps.sleep(1) end)"] = "a C function that called back lies between",
  } do
    case(("%s is explained"):format(body), function(t)
      t:expect_error "script error in the up filter"
      local p, server = scripted.up(t, "local _ = 1\n" .. (body:sub(1, 1) == "(" and "_ = " or "") .. body)
      local client = t:pair(p, server)
      client:expect_reset()
      p:log("error .*" .. message)
    end)
  end
end)

describe("a stream that is kept", function()
  case("answers closed once its filter has returned", function(t)
    local p, server = scripted.up(t, [[
      conn:after(0.05, function()
        for _, call in ipairs { function() return rd:read() end, function() return wr:write "x" end,
          function() return wr:pass(rd) end, function() return rd:unread "x" end, function() return wr:finish() end } do
          local a, b = call()
          conn.log.info("%s %s", tostring(a), tostring(b))
        end
        conn.log.info("kept: %s", tostring(rd))
      end)]])
    local client, upstream = t:pair(p, server)
    p:log(("nil closed\n.-"):rep(5) .. "kept: stream %(closed%)")
    client:send "x"
    upstream:expect "x"
  end)

  case("answers closed once its connection has ended", function(t)
    local p, server = scripted.start(t, [[
      local kept
      return { filter = { up = function(conn, rd, wr)
        if not kept then kept = { rd, wr } conn.log.info "reads" rd:read() return end
        local rd, wr = unpack(kept)
        local a, b = rd:read()
        local c, d = wr:write "x"
        conn.log.info("%s %s %s %s", tostring(a), tostring(b), tostring(c), tostring(d))
      end } }]])
    local client, upstream = t:pair(p, server)
    p:log "reads"
    upstream:reset()
    client:expect_reset()
    t:pair(p, server)
    p:log "nil closed nil closed"
  end)
end)

case("lines and frames of a megabyte arrive whole", function(t)
  local p, server = scripted.up(t, [[
    local line, eol = rd:line(2^21)
    local head, body = rd:frame { len = "u32be", max = 2^21 }
    conn.log.info("%d %d %d", #line, #eol, #body)
    wr:write(line, eol, head, body)]])
  local client, upstream = t:pair(p, server)
  local line = ("x"):rep(1048576) .. "\r\n"
  local text = line .. "\0\16\0\1" .. bulk.text(0, 1048577)
  local rnd, at = bulk.random(7), 1
  while at <= #text do
    local n = rnd(60000)
    client:send(text:sub(at, at + n - 1))
    at = at + n
  end
  client:finish()
  assert.equal(text, upstream:read(#text))
  upstream:expect_eof()
  p:log "1048576 2 1048577"
end)
