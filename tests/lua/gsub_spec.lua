-- The quick string.gsub gives what the original gives, in every case.
local original = string.gsub
local gsub = require "penstock.gsub"(original, require "penstock_text", function() end)

local function results(f, ...)
  local r = { n = select("#", ...), pcall(f, ...) }
  r.count = #r
  -- the name and position in the message depend on who calls
  if not r[1] then r[2] = tostring(r[2]):gsub("^.-:%d+: ", ""):gsub("'[%w?_]+'", "'gsub'") end
  return r
end

local function same(...)
  assert.same(results(original, ...), results(gsub, ...))
end

local function pick(list) return list[math.random(#list)] end

local function text(alphabet, max)
  local parts = {}
  for i = 1, math.random(0, max) do parts[i] = pick(alphabet) end
  return table.concat(parts)
end

describe("gsub", function()
  setup(function() math.randomseed(42) end)

  it("equals the original over random plain cases", function()
    local alphabet = { "a", "b", "ab", "\0", " ", "\255", "secret" }
    for _ = 1, 20000 do
      local n = pick { false, false, false, -1, 0, 1, 2, 3, 1000 }
      local s, p, r = text(alphabet, 30), text(alphabet, 3), text(alphabet, 4)
      if n then same(s, p, r, n) else same(s, p, r) end
    end
  end)

  it("equals the original over random magic cases", function()
    local alphabet = { "a", "b", "\0", "%", ".", "*", "-", "+", "?", "^", "$", "(", ")", "[", "]", "%a", "%0", "%1" }
    for _ = 1, 20000 do
      local replacement = pick { text(alphabet, 4), 17, -1.5, 1e300, { a = "x", b = false }, string.upper }
      same(text(alphabet, 20), text(alphabet, 4), replacement, pick { 0, 1, 2.5, 100, -3, "2", 2 ^ 40 })
    end
  end)

  it("equals the original for odd arguments", function()
    same("a", "", "-")
    same("abc", "b", 12)
    same("abc", "b", "%0")
    same("abc", "b", "%%")
    same("abc", "b", "%1")
    same(1234, 2, 7)
    same("1234", 2, "x")
    same("abc", "b", {})
    same("abc", "b", true)
    same("abc", "b", nil)
    same(nil, "b", "c")
    same("abc", {}, "c")
    same("abc", "b", "c", "x")
    same("abc", "b", "c", 0 / 0)
    same("", "b", "c")
    same("b", "b", "")
    same("abc", "b", function() return nil end)
    same(("x"):rep(5000), "x", "yz")
    same(("x"):rep(5000), "x", "yz", 2500)
    same(("x"):rep(3000000), "xx", "abc")
  end)

  it("returns the same string and 0 when nothing matches", function()
    local s, n = gsub("nothing here", "secret", "***")
    assert.equal("nothing here", s)
    assert.equal(0, n)
  end)

  it("keeps its results apart between calls that share a buffer", function()
    local kept = {}
    for i = 1, 50 do kept[i] = (gsub(("-%d-x"):format(i):rep(i), "x", "yyyy")) end
    collectgarbage()
    for i = 1, 50 do assert.equal((("-%d-yyyy"):format(i):rep(i)), kept[i]) end
  end)

  it("survives many different patterns", function()
    for i = 1, 2000 do same("value " .. i .. " of 2000", tostring(i), "N") end
  end)
end)
