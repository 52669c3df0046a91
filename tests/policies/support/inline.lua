-- Policies as texts in specs.
local assert = require "luassert"
local t = require "penstock.test"

local inline = {}

-- Calls f(path) with a file that has this text.
local function with_file(text, f)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  local ok, result = pcall(f, path)
  os.remove(path)
  if not ok then error(result, 0) end
  return result
end

-- text(lua, load_options) -> the policy that this Lua text returns; `ps` is there.
function inline.text(lua, load_options)
  return with_file('local ps = require "penstock"\n' .. lua, function(path)
    return t.load(path, load_options or { to = "127.0.0.1:7001" })
  end)
end

-- load(name, options, load_options) -> the policy penstock.policy.<name> with these options (Lua text).
function inline.load(name, options, load_options)
  local text = ('local ps = require "penstock"\nlocal policy = require "penstock.policy.%s" %s\nreturn policy, ps\n')
    :format(name, options)
  return with_file(text, function(path) return t.load(path, load_options or { to = "127.0.0.1:7001" }) end)
end

-- refuses(name, options, message): loading it raises that, at its line.
function inline.refuses(name, options, message)
  local ok, why = pcall(inline.load, name, options)
  assert.is_false(ok)
  assert.matches(message, why, 1, true)
  assert.matches("^[^\n]*:2: ", why)
end

return inline
