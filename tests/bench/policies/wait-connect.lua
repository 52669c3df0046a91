-- The connect hook waits: there is no upstream yet.
local ps = require "penstock"

return {
    connect = function()
        ps.sleep "1h"
    end,
}
