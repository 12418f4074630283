-- KEYS[1] claim. ARGV: owner.
-- Ends the claim if this owner has it.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
-- An earlier run may have ended the claim without confirmation. A write makes the replicas confirm that.
if not owner then redis.call('SET', KEYS[1], ARGV[1], 'PX', 1) end
redis.call('UNLINK', KEYS[1])
return 1
