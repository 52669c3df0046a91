-- 4. a lab: every tenth connection is slow, one in twenty dies, errors of Postgres are held back
local ps = require "penstock"
ps.listen { name = "flaky-db", bind = "127.0.0.1:15432", to = "127.0.0.1:5432", policy = {
  connect = function(conn) if conn.seq % 10 == 0 then ps.sleep(3) end end,
  connected = function(conn) if ps.random() < 0.05 then conn:after(2, function() conn:reset() end) end end,
  filter = { down = function(conn, rd, wr)
    while true do
      local head, body = rd:frame { skip = 1, len = "u32be", adjust = -4, max = 2 ^ 24 }
      if not head then return end
      if head:byte() == 0x45 then ps.sleep(1) end
      wr:write(head, body)
    end
  end } } }
