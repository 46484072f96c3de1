//! Many machines: the home of JobManager, TaskManager, REST and dashboard.
