-- Policies and configurations of examples/ over real sockets: their text, with a test's addresses in place of theirs.
local sys = require "tests.e2e.support.sys"

local examples = {}

-- Writes examples/<name>.lua into the case's folder; the key of every replacement, which must be there, becomes its
-- value. Returns the path.
local function write(t, name, replacements)
  local text = assert(sys.read_file("examples/" .. name .. ".lua"))
  for from, to in pairs(replacements or {}) do
    local first, last = text:find(from, 1, true)
    assert(first, name .. ".lua has no " .. from)
    text = text:sub(1, first - 1) .. to .. text:sub(last + 1)
  end
  return t:file(name .. ".lua", text)
end

-- Serves a configuration.
function examples.run(t, name, replacements)
  return t:penstock { "run", write(t, name, replacements) }
end

-- Serves a policy, with options of the command line.
function examples.policy(t, name, target, replacements, ...)
  local args = { ... }
  for _, word in ipairs { "-p", write(t, name, replacements), "127.0.0.1:0", target } do args[#args + 1] = word end
  return t:penstock(args)
end

return examples
