-- Sends connections to one server by day and to another by night, and slows the night ones down.
--
--   penstock -p examples/route-by-time.lua 8080 -
local DAY = "app.internal:80"
local NIGHT = { "standby.internal:80", "app.internal:80" } -- tried in order

return {
  connect = function(conn)
    local hour = tonumber(os.date("%H"))
    if hour >= 7 and hour < 20 then return DAY end
    conn:tag("night", true)
    conn:limit { down = "512K" }
    return NIGHT
  end,
}
