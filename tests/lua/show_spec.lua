local show = require "penstock.show"

describe("what the Lua prompt shows of", function()
  it("plain values is as print has it, with tabs between", function()
    assert.equal("1\ttrue\tnil\ta b", show(1, true, nil, "a b"))
    assert.equal("", show())
    assert.equal("nil", show(nil))
  end)

  it("short tables stands on one line, its list first, then its keys in order", function()
    assert.equal('{ 1, "two", a = 1, b = {}, ["end"] = 2, ["x y"] = 3 }',
      show { 1, "two", b = {}, a = 1, ["x y"] = 3, ["end"] = 2 })
    assert.equal('{ [-1] = "c", [0.5] = "b", [10] = "a", x = 1, [true] = 2 }',
      show { [10] = "a", [0.5] = "b", [-1] = "c", [true] = 2, x = 1 })
  end)

  it("tables whose keys tell another text at each call is there all the same", function()
    local texts, t = 0, {}
    local meta = { __tostring = function()
      texts = (texts * 7 + 3) % 11
      return "key " .. texts
    end }
    for _ = 1, 100 do t[setmetatable({}, meta)] = true end
    assert.matches("%[key %d+%] = true", show(t))
  end)

  it("longer tables is indented", function()
    local long = ("x"):rep(40)
    assert.equal(('{\n  a = "%s",\n  b = {\n    "%s",\n    "%s"\n  }\n}'):format(long, long, long),
      show { a = long, b = { long, long } })
  end)

  it("long lists fills its lines", function()
    local list = {}
    for i = 1, 100 do list[i] = i end
    local lines = select(2, show(list):gsub("\n", "\n"))
    assert.is_true(lines < 10)
  end)

  it("strings in tables shows what is in them", function()
    assert.equal([[{ "a\"b\\c\n\000\027" }]], show { 'a"b\\c\n\0\27' })
  end)

  it("cycles comes to an end", function()
    local t = { name = "t" }
    t.self = t
    t.list = { t }
    assert.equal('{ list = { <cycle> }, name = "t", self = <cycle> }', show(t))
  end)

  it("the same table twice is no cycle", function()
    local t = { 1 }
    assert.equal("{ { 1 }, { 1 } }", show { t, t })
  end)

  it("deep, long and wide tables is bounded", function()
    local deep = {}
    for _ = 1, 1000 do deep = { deep } end
    assert.equal("{ { { { { {…} } } } } }", show(deep))
    local wide = {}
    for i = 1, 1e5 do wide["k" .. i] = i end
    assert.is_true(#show(wide) < 10000)
    local long = {}
    for i = 1, 1e5 do long[i] = ("s"):rep(900) end
    assert.is_true(#show(long) < 100000)
    assert.is_true(#show(("s"):rep(1e6)) < 100000)
    assert.matches("1000000 bytes", show(("s"):rep(1e6)))
    local bush = {}
    for _ = 1, 5 do
      local inner = bush
      bush = {}
      for i = 1, 100 do bush[i] = inner end
    end
    assert.is_true(#show(bush) < 1000000)
  end)

  it("objects is what they say of themselves, and calls nothing else of theirs", function()
    local function never() error "called" end
    local object = setmetatable({}, { __tostring = function() return "an object" end, __metatable = "hidden" })
    assert.equal("{ an object }", show { object })
    assert.equal("{ 1 }", show(setmetatable({ 1 }, { __index = never, __len = never, __pairs = never, __eq = never })))
    assert.equal("<table>", show(setmetatable({}, { __tostring = never })))
  end)

  it("several values puts each on lines of its own when one is longer than a line", function()
    assert.equal("1\na\nb", show(1, "a\nb"))
  end)
end)
