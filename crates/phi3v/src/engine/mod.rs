//! Sequences sharing one model: step = schedule, forward, postprocess.
