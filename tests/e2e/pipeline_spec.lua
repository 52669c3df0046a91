-- Several filters in one direction: whichever returns, finishes or fails first, in whatever order.
local e2e = require "tests.e2e.support.case"
local scripted = require "tests.e2e.support.scripted"
local case, bulk = e2e.case, e2e.bulk

-- Each filter marks what passes through it and stops after the n-th line; "" passes all.
local prelude = [[
  local function marks(mark, n)
    return { filter = { up = function(conn, rd, wr)
      for i = 1, n do
        local line, eol = rd:line()
        if not line then return end
        wr:write(line, mark, eol)
      end
      if mark == "F" then wr:finish() end
      if mark == "E" then error "no" end
    end } }
  end
]]

-- What filters { mark, n } make of these lines.
local function expected(filters, lines)
  local out = {}
  for i, line in ipairs(lines) do
    for _, f in ipairs(filters) do
      if i <= f[2] then line = line .. f[1] end
    end
    out[i] = line .. "\n"
  end
  return table.concat(out)
end

local function start(t, filters)
  local list = {}
  for i, f in ipairs(filters) do list[i] = ("marks(%q, %d)"):format(f[1], f[2]) end
  return scripted.start(t, prelude .. "return { " .. table.concat(list, ", ") .. " }")
end

local lines = {}
for i = 1, 12 do lines[i] = "line " .. i end
local text = table.concat(lines, "\n") .. "\n"

for _, order in ipairs {
  { 0, 0 }, { 0, 5 }, { 5, 0 }, { 3, 7 }, { 7, 3 }, { 4, 4 }, { 100, 3 }, { 3, 100 }, { 100, 100 }, { 0, 0, 0 },
  { 2, 4, 6 }, { 2, 6, 4 }, { 4, 2, 6 }, { 4, 6, 2 }, { 6, 2, 4 }, { 6, 4, 2 }, { 0, 100, 0 }, { 100, 0, 100 },
  { 0, 0, 100 }, { 100, 0, 0 }, { 5, 5, 5 },
} do
  case(("filters that return after %s lines leave all others in place"):format(table.concat(order, ", ")), function(t)
    local filters = {}
    for i, n in ipairs(order) do filters[i] = { ("abc"):sub(i, i), n } end
    local p, server = start(t, filters)
    local want = expected(filters, lines)
    for _, step in ipairs { #text, 1, 13 } do
      local client, upstream = t:pair(p, server)
      for at = 1, #text, step do
        client:send(text:sub(at, at + step - 1))
        client:wait_delivered()
      end
      client:finish()
      upstream:expect(want):expect_eof()
      upstream:send("reply"):close()
      client:expect("reply"):expect_eof()
      client:close()
    end
  end)
end

for at = 1, 3 do
  case(("filter %d of 3 that finishes ends the direction behind what it has let pass"):format(at), function(t)
    local filters = { { "a", 100 }, { "b", 100 }, { "c", 100 } }
    filters[at] = { "F", 2 }
    local p, server = start(t, filters)
    local client, upstream = t:pair(p, server)
    client:send(text)
    local marks = { "abc", "abc", "abc" }
    marks = marks[at]:sub(1, at - 1) .. "F" .. marks[at]:sub(at + 1)
    upstream:expect(("line 1%s\nline 2%s\n"):format(marks, marks))
    upstream:expect_eof()
    upstream:send("reply")
    client:expect "reply"
    upstream:finish()
  end)

  case(("filter %d of 3 that fails resets both sides"):format(at), function(t)
    t:expect_error "script error in the up filter"
    local filters = { { "a", 100 }, { "b", 100 }, { "c", 100 } }
    filters[at] = { "E", 2 }
    local p, server = start(t, filters)
    local client, upstream = t:pair(p, server)
    client:send(text)
    local _, how = upstream:read_all()
    assert.equal("ECONNRESET", how)
    p:expect_end { reason = "script", detail = "filter" }
  end)
end

case("a filter that finishes first and one behind it that finishes later lose and mix up nothing", function(t)
  local p, server = scripted.start(t, prelude .. [[
    local slow = { filter = { up = function(conn, rd, wr)
      while true do
        local line, eol = rd:line()
        if not line then return end
        ps.sleep(0.02)
        wr:write(line, "s", eol)
        collectgarbage()
      end
    end } }
    return { marks("a", 100), marks("F", 3), slow } ]])
  local client, upstream = t:pair(p, server)
  client:send(text)
  upstream:expect "line 1aFs\nline 2aFs\nline 3aFs\n"
  upstream:expect_eof()
  upstream:finish()
end)

case("a filter that wants more at once than a queue holds gets it", function(t)
  local p, server = scripted.start(t, [[
    local function copy(conn, rd, wr) for s in function() return rd:read() end do wr:write(s) end end
    return { { filter = { up = copy } }, { filter = { up = function(conn, rd, wr)
      while true do
        local s = rd:exactly(1500000)
        if not s then return end
        wr:write(s)
      end
    end } }, { filter = { up = copy } } }]])
  local client, upstream = t:pair(p, server)
  bulk.run { { from = client, to = upstream, bytes = 7000000, finish = true } }
end)

case("an abort reaches the other side behind what the last filter has in hand", function(t)
  local p, server = scripted.start(t, [[
    return { { filter = { up = function(conn, rd, wr)
        for s in function() return rd:read() end do wr:write(s) end
      end } },
      { filter = { up = function(conn, rd, wr)
        while true do
          local line = rd:line()
          if not line then return end
          conn.log.info "has one"
          ps.sleep(0.1)
          wr:write(line, "\n")
        end
      end } } }]])
  local client, upstream = t:pair(p, server)
  client:send "one\ntwo\nthree"
  p:log "has one"
  client:wait_delivered()
  client:reset()
  local got, how = upstream:read_all()
  assert.equal("one\ntwo\n", got)
  assert.equal("ECONNRESET", how)
  p:expect_end { reason = "reset", side = "client" }
end)
