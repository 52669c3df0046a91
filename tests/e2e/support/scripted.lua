-- penstock with a policy that a test writes down.
local scripted = {}

-- Starts it with a policy of this text, after `local ps = require "penstock"`. Options: args (further words of the
-- command line), target (defaults to a listener of the test's own), listen (options of that one). Returns it and the
-- listener.
function scripted.start(t, text, options)
  options = options or {}
  local server = not options.target and t:listen(nil, options.listen)
  local args = { "-p", t:file("policy.lua", 'local ps = require "penstock"\n' .. text) }
  for _, word in ipairs(options.args or {}) do args[#args + 1] = word end
  args[#args + 1] = "127.0.0.1:0"
  args[#args + 1] = options.target or server.address
  return t:penstock(args, options), server
end

-- The same for a policy with one up filter of this body: conn, rd, wr are its arguments.
function scripted.up(t, body, options)
  return scripted.start(t, ("return { filter = { up = function(conn, rd, wr)\n%s\nend } }"):format(body), options)
end

return scripted
