-- Lets in the clients whose address is in a set of a Redis server, and remembers the answer for ten seconds.
--
--   redis-cli SADD allowed 203.0.113.7
--   penstock -p examples/redis-allow-list.lua :5432 db.internal:5432
--
-- Without an answer nobody is let in. The answers are in a store, so all workers share them.
local ps = require "penstock"

local REDIS, SET, REMEMBER = "127.0.0.1:6379", "allowed", 10
local known = ps.store("allow-list", { items = 10000 })

-- true or false, or nil and why there was no answer.
local function ask(ip)
  local redis, err = ps.tcp.connect(REDIS, { timeout = 1 })
  if not redis then return nil, err end
  redis:write("*3\r\n$9\r\nSISMEMBER\r\n$", #SET, "\r\n", SET, "\r\n$", #ip, "\r\n", ip, "\r\n")
  local answer, why = redis:line(128)
  redis:close()
  if answer == ":1" or answer == ":0" then return answer == ":1" end
  return nil, answer and "unexpected answer: " .. answer or why
end

return {
  accept = function(conn)
    local ip = conn.client.ip
    local allowed = known:get(ip)
    if allowed == nil then
      local err
      allowed, err = ask(ip)
      if allowed == nil then
        conn.log.warn("%s: %s", REDIS, err)
        return ps.deny { reason = "no_answer" }
      end
      known:set(ip, allowed, REMEMBER)
    end
    if not allowed then return ps.deny { reason = "not_listed" } end
  end,
}
