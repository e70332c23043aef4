# nnsight puts methods on `object`, after which beartype can no longer be imported.
import beartype as beartype
from threads import one_thread as one_thread
