local globals = require "penstock.globals"

local known = "print pairs require setfenv module string"

-- The warnings about files with these texts, without their paths.
local function warnings(...)
  local files = {}
  for i, text in ipairs { ... } do
    files[i] = os.tmpname()
    local file = io.open(files[i], "w")
    file:write(text)
    file:close()
  end
  local lines = globals.warnings(files, known)
  for i, file in ipairs(files) do
    for j, line in ipairs(lines) do
      if line:sub(1, #file) == file then lines[j] = i .. line:sub(#file + 1) end
    end
    os.remove(file)
  end
  return lines
end

describe("globals.warnings", function()
  it("finds a misspelt function inside a hook that is never called", function()
    assert.same({ '1:2: unknown global "prnt", did you mean "print"?' },
      warnings "return { connect = function(conn)\n  if conn then prnt(conn) end\nend }")
  end)

  it("finds one in a function in a function", function()
    assert.same({ '1:3: unknown global "conect"' },
      warnings "return function()\n  return function() for _ in pairs {} do\n    conect() end end end")
  end)

  it("tells of an assigned global once, where it is first assigned, and not where it is read", function()
    assert.same({ '1:1: assigns the global "counter"; write local counter (each worker has its own)' },
      warnings "counter = 0\nreturn { connect = function() counter = counter + 1 print(counter) end }")
  end)

  it("a global of another file is known", function()
    assert.same({ '2:1: assigns the global "shared"; write local shared (each worker has its own)' },
      warnings("return shared", "shared = 1"))
  end)

  it("is silent about locals, fields, upvalues and what is known", function()
    assert.same({}, warnings "local a = {} a.b = 1 print(a.b, string.x) return function() a.c = require end")
  end)

  it("leaves alone what changes its environment", function()
    assert.same({}, warnings "setfenv(1, {}) x = y")
    assert.same({}, warnings "module('x') y = z")
  end)
end)
